# The end of a session: after `bye`, and when its connection ends.

# Leaves all scopes, and gives the lease back. The watchdog runs until then, for the case that this
# process is killed. It does not renew the lease meanwhile: a scope that blocks must not lock the
# host forever.
rel_leave() {
    echo leave >"$rel_tmp/busy"
    rel_as_holder rel_leave_all
    if [ -n "${rel_watchdog_pid:-}" ]; then kill "$rel_watchdog_pid" 2>/dev/null; fi
    rel_token=
    rm -rf -- "$rel_tmp"
}

rel_leave_all() {
    rel_scopes_leave left
    rel_give_back
}

# Ends the program, and the session, after the connection was lost.
rel_on_disconnect() {
    # The rest may take longer than the time after which the watchdog acts.
    if [ -n "${rel_watchdog_pid:-}" ]; then kill "$rel_watchdog_pid" 2>/dev/null; rel_watchdog_pid=; fi
    if [ "${rel_at_work:-}" = questions ]; then
        trap '' TERM
        kill -TERM 0
    fi
    if [ -s "$rel_tmp/program" ] || [ -s "$rel_tmp/pid" ]; then rel_end_program; fi
    rel_close_step interrupted 'the connection ended'
    # `undone`: the scope was left early, so the next run does its steps again.
    rel_as_holder rel_scopes_leave undone
    rel_leave
}
