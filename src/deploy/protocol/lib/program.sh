# The program of a session: its start, and its end. Questions count as a program here.

rel_end_program() {
    local count=0 leader=''
    # The number is in the file a moment after the fork.
    while [ ! -s "$rel_tmp/pid" ] && [ ! -s "$rel_tmp/ended" ] && [ "$count" -lt 20 ]; do
        sleep 0.1
        count=$((count + 1))
    done
    { read -r leader <"$rel_tmp/pid"; } 2>/dev/null
    # While the waiter lives, no other process can have that number.
    if [ -n "$leader" ] && { rel_read_birth "$rel_program" ||
        rel_is_session "$leader" '' "$rel_run"; }; then
        rel_end_group "$leader"
    fi
}

# EVENT DETAIL: writes the end of the step at work to the journal.
rel_close_step() { if [ -s "$rel_tmp/at" ]; then rel_as_holder rel_close_it "$1" "$2"; fi; }

rel_close_it() {
    local seq='' id='' key='' detached=''
    if [ -s "$rel_tmp/at" ]; then
        { IFS= read -r seq; IFS= read -r id; IFS= read -r key; IFS= read -r detached; } <"$rel_tmp/at"
        : >"$rel_tmp/at"
        # A detached step goes on, or has ended: the next run finds out.
        if [ -n "$detached" ]; then
            rel_journal detached "$seq" "$id" "$key" -
        else
            rel_journal "$1" "$seq" "$id" "$key" "$2"
        fi
    fi
}

# The end of the program before does not count for the next one.
rel_forget_end() {
    if [ -s "$rel_tmp/told" ]; then
        : >"$rel_tmp/pid"
        : >"$rel_tmp/ended"
        : >"$rel_tmp/told"
    fi
}

# Starts the program, with a subshell that waits for it and reports its end.
rel_start_program() {
    local rel_status
    rel_forget_end
    rel_at_work=program
    {
        REL_RUN_ID=$rel_run setsid sh "$rel_tmp/program" "$rel_tmp" "$rel_umask" "${rel_token:-}" \
            "${rel_epoch:-}" "${rel_epoch_clock:-}" "$rel_uid" "$rel_gid" "$rel_state" \
            </dev/null 2>&1 &
        # One write: the file is complete or empty.
        printf '%s\n' "$!" >"$rel_tmp/pid"
        wait "$!"
        rel_status=$?
        # If it was killed, its processes must not go on. It was reaped just now, so no other
        # session has its number yet.
        if [ "$rel_status" -gt 128 ]; then rel_end_group "$!"; fi
        rel_report_end "$rel_status"
    } </dev/null &
    rel_program=$!
    rel_start_watchdog
}

# STATUS: reports that the program has ended.
rel_report_end() {
    # From here on another process can have its number.
    echo "$1" >"$rel_tmp/ended"
    : >"$rel_tmp/pid"
    : >"$rel_tmp/work"
    if [ -n "${rel_token:-}" ] && ! rel_holds; then rel_report_fenced; fi
    echo "$1" >"$rel_tmp/told"
    rel_emit ended "$1"
}

# Reports the end of a program whose waiter was killed. Whether the waiter lives is checked before
# `told`: the other way round, an end between the two checks would be reported twice.
rel_check_program() {
    local leader=''
    if [ -z "${rel_at_work:-}" ] || rel_read_birth "$rel_program" || [ -s "$rel_tmp/told" ]; then
        return 0
    fi
    { read -r leader <"$rel_tmp/pid"; } 2>/dev/null
    if [ -z "$leader" ] || ! rel_read_birth "$leader"; then rel_report_end 137; fi
}

rel_wait_program() {
    if [ -n "${rel_at_work:-}" ]; then
        wait "$rel_program"
        rel_at_work=
    fi
}
