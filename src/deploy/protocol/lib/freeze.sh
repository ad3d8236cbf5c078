# Freezes: a person locks an environment, across runs.

# Reads the freeze into rel_freeze_…; fails if there is none, or if it has expired.
rel_read_freeze() {
    rel_freeze_token=
    { IFS=$rel_tab read -r rel_freeze_token rel_freeze_who rel_freeze_reason rel_freeze_since rel_freeze_until \
        <"$rel_state/freeze"; } 2>/dev/null || :
    if [ -z "$rel_freeze_token" ]; then return 1; fi
    if [ "$rel_freeze_until" = - ]; then return 0; fi
    rel_now
    [ "$rel_time" -lt "$rel_freeze_until" ]
}

rel_is_frozen() { rel_read_freeze && [ "$rel_freeze_who" != "$rel_who" ]; }

# Prints the freeze that was read: kind, token, who, -, reason, age and rest in seconds.
rel_print_freeze() {
    local rest=-
    rel_now
    if [ "$rel_freeze_until" != - ]; then rest=$((rel_freeze_until - rel_time)); fi
    printf 'freeze\t%s\t%s\t-\t%s\t%s\t%s\n' "$rel_freeze_token" "$rel_freeze_who" "$rel_freeze_reason" \
        "$((rel_time - rel_freeze_since))" "$rest"
}

# REASON SECONDS: freezes the environment, from the end of this session on.
rel_freeze() {
    local rel_until=-
    rel_now
    if [ "$2" != - ]; then rel_until=$((rel_time + $2)); fi
    if rel_as_holder rel_write_freeze "$1"; then rel_emit frozen; else rel_report_undone; fi
}

rel_write_freeze() {
    printf '%s\t%s\t%s\t%s\t%s\n' "$rel_token" "$rel_who" "$1" "$rel_time" "$rel_until" \
        >"$rel_state/freeze.new" &&
        mv -f -- "$rel_state/freeze.new" "$rel_state/freeze" &&
        rel_journal locked - - "$rel_token" "$1"
}

# [REASON]: ends the freeze; that of another person only with a reason.
rel_unfreeze() {
    rel_read_freeze || rel_freeze_who=
    if [ -n "$rel_freeze_who" ] && [ "$rel_freeze_who" != "$rel_who" ] && [ -z "$1" ]; then
        rel_emit locked "$(rel_print_freeze)"
    elif rel_as_holder rel_end_freeze "$1"; then
        rel_emit unlocked "$rel_freeze_who$rel_tab$rel_broken_holder"
    else
        rel_report_undone
    fi
}

rel_end_freeze() {
    if [ -n "$1" ] && [ -n "$rel_broken_holder" ]; then
        rel_journal lock-broken - - "$rel_broken_holder" "$1" || return 1
    fi
    if [ -z "$rel_freeze_who" ]; then return 0; fi
    if [ "$rel_freeze_who" = "$rel_who" ]; then
        rel_journal unlocked - - "$rel_freeze_token" -
    else
        rel_journal lock-broken - - "$rel_freeze_who" "$1"
    fi && rm -f -- "$rel_state/freeze"
}
