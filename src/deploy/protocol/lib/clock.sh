# The two clocks: time since the host was started, and time since the epoch.

# Sets rel_clock to a time in hundredths of a second, by a monotonic clock if the host has one.
rel_monotonic_cs() {
    local idle
    # shellcheck disable=SC2034 # only the first column counts
    if { read -r rel_clock idle </proc/uptime; } 2>/dev/null; then
        rel_clock=${rel_clock%.*}${rel_clock#*.}
    else
        until rel_clock=$(date +%s) || [ "$?" -lt 128 ]; do :; done
        rel_clock=${rel_clock}00
    fi
}

# Sets rel_time to the seconds since the epoch. `date` runs once in a session; later calls add the
# time since then, which takes no process.
rel_now() {
    rel_monotonic_cs
    if [ -z "${rel_epoch:-}" ]; then
        # Again if `date` was killed.
        until rel_epoch=$(date +%s) || [ "$?" -lt 128 ]; do :; done
        rel_epoch_clock=$rel_clock
    fi
    rel_time=$((rel_epoch + (rel_clock - rel_epoch_clock) / 100))
}
