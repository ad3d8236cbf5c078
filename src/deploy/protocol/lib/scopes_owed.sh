# Open scopes: how a session leaves them.

# FILE: sets rel_scope_run, rel_scope_seq and rel_scope_id to the step that opened a scope, and
# rel_scope_again to `again` if a rollback did.
rel_read_scope() {
    local mark=''
    { read -r mark rel_scope_run rel_scope_seq rel_scope_again; read -r mark rel_scope_id; } <"$1"
    case $rel_scope_seq in *[!0-9]* | '') rel_scope_seq=0 ;; esac
}

# Whether a scope is open.
rel_is_owing() {
    local one
    for one in "$rel_state/scopes"/*; do
        if [ -s "$one" ]; then return 0; fi
    done
    return 1
}

# EVENT FILE: leaves the scope that was read from FILE, and writes EVENT to the journal. Fails if it
# cannot be left; the first failure sets rel_owed to its name and rel_why to its output. The scope
# rel_abandons is abandoned then, for rel_reason, if all scopes that were opened later are left.
rel_leave_scope() {
    local rel_scope_name="${2##*/}" rel_status
    if rel_scope_leave "$rel_scope_name" >"$rel_state/scopes.last" 2>&1; then
        rel_status=0
    elif [ "$rel_scope_name" = "${rel_abandons:-}" ] && [ -z "$rel_owed" ] && rel_scope_abandon "$2"; then
        rel_status=0
    else
        rel_status=1
        if [ -z "$rel_owed" ]; then
            rel_owed=$rel_scope_name
            rel_why=$(tail -n 5 -- "$rel_state/scopes.last" | tr '\t\n' '  ')
        fi
    fi
    cat -- "$rel_state/scopes.last" >>"$rel_state/scopes.log"
    # A rollback that is resumed enters it again.
    if [ "$rel_status" -eq 0 ]; then
        if [ -n "$rel_scope_again" ]; then set -- left; fi
        rel_journal "$1" "$rel_scope_seq" "$rel_scope_id" "$rel_scope_run" -
    fi
    return "$rel_status"
}

# EVENT: leaves all open scopes, the last one first, and writes EVENT to the journal for each. Sets
# rel_owed to one that could not be left.
rel_scopes_leave() {
    local rel_below rel_top rel_one
    rel_owed=
    rel_below=2147483647
    while :; do
        rel_top=-1
        for rel_one in "$rel_state/scopes"/*; do
            if [ ! -s "$rel_one" ]; then continue; fi
            rel_read_scope "$rel_one"
            if [ "$rel_scope_seq" -lt "$rel_below" ] && [ "$rel_scope_seq" -gt "$rel_top" ]; then rel_top=$rel_scope_seq; fi
        done
        if [ "$rel_top" -lt 0 ]; then break; fi
        rel_below=$rel_top
        for rel_one in "$rel_state/scopes"/*; do
            if [ ! -s "$rel_one" ]; then continue; fi
            rel_read_scope "$rel_one"
            if [ "$rel_scope_seq" -ne "$rel_top" ]; then continue; fi
            rel_leave_scope "$1" "$rel_one" || :
        done
    done
}

rel_report_owed() { rel_emit owed "$rel_owed$rel_tab$rel_state/scopes/$rel_owed$rel_tab$rel_why"; }
