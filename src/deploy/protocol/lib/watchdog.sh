# The watchdog of a session: renews the lease, and ends the session when rel is silent.

# PID of the session: renews the lease while beats of rel arrive. A connection can break without an
# end of standard input. So after half the time of a lease without a beat the watchdog ends the
# session, and gives the lease back before others may take it over. A session that only asks, and
# ends before its first beat, has no watchdog: it holds no lease.
rel_watchdog() {
    local heard='' quiet=0 sleeper beat='' busy=''
    rel_watchdog_pid=
    trap 'kill "$sleeper" 2>/dev/null; exit 0' TERM
    while :; do
        sleep "$rel_period" 3>&- &
        sleeper=$!
        wait "$sleeper"
        { read -r rel_token <"$rel_tmp/token"; } 2>/dev/null || rel_token=
        { read -r beat <"$rel_tmp/beat"; } 2>/dev/null || [ -e "$rel_tmp/beat" ] || exit 0
        if [ "$beat" != "$heard" ]; then
            quiet=0
            rel_as_holder rel_renew
        elif [ -s "$rel_tmp/busy" ]; then
            # During a call no command is read, so beats do not count. A call that waits for rel
            # does not renew the lease.
            quiet=0
            read -r busy <"$rel_tmp/busy"
            if [ "$busy" = work ]; then rel_as_holder rel_renew; fi
        else
            quiet=$((quiet + 1))
        fi
        heard=$beat
        # Also if the session was killed: this process would keep the connection open.
        if [ "$quiet" -ge 3 ] || ! kill -0 "$1" 2>/dev/null; then
            # The session and its process group, except this process.
            trap '' TERM
            kill -TERM -"$1" 2>/dev/null
            kill -KILL "$1" 2>/dev/null
            rel_on_disconnect
            # The last act: it blocks if the connection takes no more data.
            rel_emit silent >&3
            kill -KILL 0
        fi
    done
}

rel_start_watchdog() {
    if [ -n "${rel_watchdog_pid:-}" ]; then return; fi
    printf '0\n' >"$rel_tmp/beat"
    rel_watchdog "$$" </dev/null 3>&1 >/dev/null 2>&1 &
    rel_watchdog_pid=$!
}

rel_record_beat() {
    rel_beats=$((${rel_beats:-0} + 1))
    printf '%s\n' "$rel_beats" >"$rel_tmp/beat"
}
