# The state of detached steps; detached.sh starts, follows and ends them. A detached step runs under
# a supervisor (detached_supervisor.sh) in a session of its own. In $rel_state/detached/NAME:
#   held    locked (flock) by the supervisor, exclusively, as long as it lives
#   meta    RUN SEQ SINCE BOOT ID KEY DOES: what it is, and the run that asked for it last; exists
#           until its end is in the journal
#   pid     number and birth of the supervisor, which leads the session
#   log     what it prints; log.former is that of the time before
#   status  exit status and time of the end, written by the supervisor; later status.last
#   name    the step's name, for readers of the log

# Sets rel_boot_id to the birth of process 1: when this host or container was started.
rel_read_boot() {
    rel_boot_id=-
    if rel_read_birth 1; then
        rel_boot_id=$rel_birth
    else
        { read -r rel_boot_id </proc/sys/kernel/random/boot_id; } 2>/dev/null || :
    fi
}

# DIR: reads its `meta` into rel_d_…; fails if there is none.
rel_detached_read() {
    rel_d_id='' rel_d_boot=''
    { IFS=$rel_tab read -r rel_d_run rel_d_seq rel_d_since rel_d_boot rel_d_id rel_d_key \
        rel_d_does <"$1/meta"; } 2>/dev/null || :
    [ -n "$rel_d_id" ]
}

# DIR: whether its supervisor lives.
rel_detached_runs() { ! { flock -n -s 8; } 8>>"$1/held"; } 2>/dev/null

# DIR: sets rel_d_state, rel_d_code and rel_d_end of the step that was read. The lock is tried
# first, because the supervisor writes the exit status before it gives the lock up.
rel_detached_state() {
    rel_d_code=- rel_d_end=-
    if rel_detached_runs "$1"; then
        rel_d_state=running
    elif { read -r rel_d_code rel_d_end <"$1/status"; } 2>/dev/null; then
        rel_d_state=ended
    elif rel_read_boot && [ "$rel_d_boot" != "$rel_boot_id" ]; then
        rel_d_state=restarted
    else
        rel_d_state=killed
    fi
}
