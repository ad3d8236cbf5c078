# The supervisor of a detached step: runs it, and records its exit status.
#
# Comes after the common functions. Descriptor 8 is the lock that shows that it lives. To end the
# step, its whole Unix session gets TERM; the supervisor stays, to record that.
rel_detached_dir=$1 rel_umask=$2 rel_limit=$3 rel_user=$4 rel_run=${REL_RUN_ID:-}
# The clock of the program that started it.
rel_epoch=$5 rel_epoch_clock=$6
trap : HUP INT TERM
rel_read_birth "$$"
printf '%s %s %s\n' "$$" "$rel_birth" "$rel_run" >"$rel_detached_dir/pid.new"
mv -f -- "$rel_detached_dir/pid.new" "$rel_detached_dir/pid"

# CODE: records the exit status, unless one is recorded already.
rel_record_end() {
    if [ ! -e "$rel_detached_dir/status" ]; then
        rel_now
        printf '%s %s\n' "$1" "$rel_time" >"$rel_detached_dir/status.new"
        mv -f -- "$rel_detached_dir/status.new" "$rel_detached_dir/status"
    fi
}

cd / || exit 1
(
    umask "$rel_umask"
    if [ -n "$rel_user" ]; then
        rel_tmp=$rel_detached_dir
        rel_script=$(cat -- "$rel_detached_dir/work") && rel_as "$rel_user" "$rel_script"
    else
        exec sh -eu "$rel_detached_dir/work"
    fi
) </dev/null >>"$rel_detached_dir/log" 2>&1 8>&- &
rel_work=$!

if [ "$rel_limit" -gt 0 ]; then
    (
        trap '' HUP INT TERM
        rel_now
        rel_until=$((rel_time + rel_limit))
        while [ "$rel_time" -lt "$rel_until" ]; do
            if [ -e "$rel_detached_dir/status" ]; then exit 0; fi
            sleep 1
            rel_now
        done
        printf 'it took longer than %s s and is ended\n' "$rel_limit" >>"$rel_detached_dir/log"
        kill -TERM 0
        sleep 10
        if [ ! -e "$rel_detached_dir/status" ]; then
            rel_record_end 137
            kill -KILL 0
        fi
    ) </dev/null >/dev/null 2>&1 8>&- &
fi

while :; do
    wait "$rel_work"
    rel_status=$?
    # A signal ends `wait`, but not the process.
    if ! kill -0 "$rel_work" 2>/dev/null; then break; fi
done
rel_record_end "$rel_status"
