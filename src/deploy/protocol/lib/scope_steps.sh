# Scopes in programs: to enter one, and to enter it again for a rollback.

# NAME LEAVE [ENTER [PORT]]: opens a scope: its file is written before the scope is entered. The
# end of the run leaves it, however the run ends, or otherwise the next run. A rollback enters it
# again with ENTER, and with the port PORT, which rel opens.
rel_scope() {
    local back
    rel_call rel_scope_leave "$1"
    rel_undo "$rel_call_line"
    if [ "$#" -gt 2 ]; then
        rel_call rel_scope_owe "$1" "$2" again
        back=$rel_state/undo/$rel_run/$rel_seq
        printf '# %s\n%s\n%s\n%s\n' "$1" "$rel_undo_head" "$rel_call_line" "$3" >"$back.enter"
        if [ -n "${4:-}" ]; then printf '%s\n' "$4" >"$back.port"; fi
    fi
    rel_scope_owe "$1" "$2"
}

# NAME LEAVE [again]: the same in an undo script, without an undo script of its own. The file is
# synced to disk: the effect of the scope may survive a power cut. `again`: a rollback enters the
# scope.
rel_scope_owe() {
    mkdir -p -- "$rel_state/scopes"
    {
        printf '# %s %s%s\n# %s\n' "$rel_run" "$rel_seq" "${3:+ $3}" "${rel_id:--}"
        rel_call rel_state "$rel_state"
        printf 'rel_state=%s rel_umask=%s\n%s\n%s\n' "${rel_call_line#* }" "$rel_umask" \
            "${rel_functions:-}" "$2"
    } >"$rel_state/scopes/.$1.new"
    mv -f -- "$rel_state/scopes/.$1.new" "$rel_state/scopes/$1"
    rel_flush "$rel_state/scopes/$1" "$rel_state/scopes"
}

# RUN SEQ ID: enters the scope of a step again, unless it is open.
rel_enter_again() {
    local rel_script="$rel_state/undo/$1/$2.enter" rel_was_run="$rel_run" rel_scope_name='' rel_status
    IFS= read -r rel_scope_name <"$rel_script" || return 0
    if [ -s "$rel_state/scopes/${rel_scope_name#??}" ]; then return 0; fi
    rel_must_hold
    rel_emit start "$2" "$1"
    rel_run=$1 rel_seq=$2 rel_id=$3
    # shellcheck source=/dev/null
    ( unset rel_nonce; set -eu; umask "$rel_umask"; cd -- "$rel_root"; . "$rel_script" ) </dev/null 2>&1 9>&-
    rel_status=$?
    rel_run=$rel_was_run
    if [ "$rel_status" -eq 0 ]; then rel_emit 'done' "$2"; else rel_emit failed "$2" "$rel_status"; fi
}
