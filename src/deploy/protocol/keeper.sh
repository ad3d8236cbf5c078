# --- the keeper: runs a detached step, and writes down how it ended ----------
# Comes after the prelude. Descriptor 8 is the lock that says that it lives. What is asked to
# end gets TERM with its whole session; the keeper stays to tell.
rel_dd=$1 rel_umask=$2 rel_limit=$3 rel_user=$4 rel_run=${REL_RUN_ID:-}
# The same clock as that of its beginning.
rel_epoch=$5 rel_epoch_clock=$6
trap : HUP INT TERM
rel_birth "$$"
printf '%s %s %s\n' "$$" "$rel_b" "$rel_run" >"$rel_dd/pid.new"
mv -f -- "$rel_dd/pid.new" "$rel_dd/pid"

# CODE: how it ended. The first one to say so is right.
rel_ended() {
    if [ ! -e "$rel_dd/status" ]; then
        rel_now
        printf '%s %s\n' "$1" "$rel_time" >"$rel_dd/status.new"
        mv -f -- "$rel_dd/status.new" "$rel_dd/status"
    fi
}

cd / || exit 1
(
    umask "$rel_umask"
    if [ -n "$rel_user" ]; then
        rel_tmp=$rel_dd
        rel_script=$(cat -- "$rel_dd/work") && rel_as "$rel_user" "$rel_script"
    else
        exec sh -eu "$rel_dd/work"
    fi
) </dev/null >>"$rel_dd/log" 2>&1 8>&- &
rel_work=$!

if [ "$rel_limit" -gt 0 ]; then
    (
        trap '' HUP INT TERM
        rel_now
        rel_until=$((rel_time + rel_limit))
        while [ "$rel_time" -lt "$rel_until" ]; do
            if [ -e "$rel_dd/status" ]; then exit 0; fi
            sleep 1
            rel_now
        done
        printf 'it took longer than %s s and is ended\n' "$rel_limit" >>"$rel_dd/log"
        kill -TERM 0
        sleep 10
        if [ ! -e "$rel_dd/status" ]; then
            rel_ended 137
            kill -KILL 0
        fi
    ) </dev/null >/dev/null 2>&1 8>&- &
fi

while :; do
    wait "$rel_work"
    rel_status=$?
    # A signal ends the wait, and not what is waited for.
    if ! kill -0 "$rel_work" 2>/dev/null; then break; fi
done
rel_ended "$rel_status"
