# --- what goes on without rel: to start it, to look on and to end it ---------
# What lies there is told in the prelude.

# RUN SEQ: finds what that step of that run has detached, as rel_dd.
rel_detached_of() {
    if [ ! -d "$rel_state/detached" ]; then return 1; fi
    for rel_dd in "$rel_state/detached"/*; do
        if rel_detached_read "$rel_dd" && [ "$rel_d_run" = "$1" ] && [ "$rel_d_seq" = "$2" ]; then
            return 0
        fi
    done
    return 1
}

# DIR: its end is in the journal. The log stays.
rel_detached_settle() {
    rm -f -- "$1/meta"
    mv -f -- "$1/status" "$1/status.last" 2>/dev/null
    rm -f -- "$1/pid" "$1/told" "$1/keeper" "$1/work" "$1/line"
}

# DIR: ends it, if it runs. What was read says when this host was started.
rel_detached_stop() {
    rel_n=0
    # The keeper writes its number down first of all.
    while [ ! -s "$1/pid" ] && rel_detached_runs "$1" && [ "$rel_n" -lt 50 ]; do
        rel_n=$((rel_n + 1))
        sleep 0.1
    done
    rel_detached_end "$1"
}

# DIR: ends its session: TERM, after ten seconds KILL.
rel_detached_end() {
    rel_boot
    if [ "$rel_d_boot" != "$rel_boot" ]; then return 0; fi
    { read -r rel_pid rel_born rel_one <"$1/pid"; } 2>/dev/null || return 0
    if rel_is_session "$rel_pid" "$rel_born" "$rel_one"; then rel_end_group "$rel_pid" 100; fi
}

# DIR OFFSET: prints its log from there until it has ended.
rel_detached_follow() {
    rel_at=$2 rel_silent=0
    while :; do
        rel_over=1
        if rel_detached_runs "$1"; then rel_over=; fi
        rel_size=$(wc -c <"$1/log") || rel_size=0
        if [ "$((rel_size))" -lt "$rel_at" ]; then rel_at=0; fi
        if [ "$((rel_size))" -gt "$rel_at" ]; then
            tail -c "+$((rel_at + 1))" -- "$1/log" 2>/dev/null | head -c "$((rel_size - rel_at))"
            rel_at=$((rel_size)) rel_silent=0
        elif [ -n "$rel_over" ]; then
            return 0
        fi
        # It may take hours.
        if [ "$rel_silent" -lt 50 ]; then
            rel_silent=$((rel_silent + 1))
            if [ -z "$rel_over" ]; then sleep 0.2; fi
        else
            sleep 1
        fi
    done 2>/dev/null
}

# DIR: where to begin with a log that somebody comes to late: its last 64 KiB, at a line.
rel_detached_late() {
    rel_at=$(wc -c <"$1/log") || rel_at=0
    rel_at=$((rel_at - 65536))
    if [ "$rel_at" -le 0 ]; then
        rel_at=0
    else
        rel_n=$(tail -c "+$((rel_at + 1))" -- "$1/log" 2>/dev/null | head -n 1 | wc -c)
        rel_at=$((rel_at + rel_n))
        printf 'the first %s bytes are in %s\n' "$rel_at" "$1/log"
    fi
}

# DIR DOES: whether what is detached is this step at work, and its end is still to come or to
# be told.
rel_detached_is() {
    rel_detached_read "$1" && [ "$rel_d_id" = "$rel_id" ] && [ "$rel_d_key" = "$rel_key" ] &&
        [ "$rel_d_does" = "$2" ] || return 1
    rel_detached_state "$1"
    [ "$rel_d_state" = running ] || [ "$rel_d_state" = ended ]
}

# DIR DOES SINCE BOOT: from here on it is this run's.
rel_detached_own() {
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$rel_run" "$rel_seq" "$3" "$4" "$rel_id" "$rel_key" \
        "$2" >"$1/meta.new" && mv -f -- "$1/meta.new" "$1/meta" &&
        printf '%s\n%s\n%s\n%s\n' "$rel_seq" "$rel_id" "$rel_key" "${1##*/}" >"$rel_tmp/at"
}

# ID: a step's name without what its records are kept apart by.
rel_detached_stem() {
    rel_n=${1#*/}
    printf '%s' "${1%%/*}/${rel_n%%\[*}"
    # Those for several hosts are several.
    case $1 in
    *'>'*) printf '%s' ">${1##*>}" ;;
    esac
}

# DIR: removes what former releases have left of the same step.
rel_detached_tidy() {
    rel_stem=$(rel_detached_stem "$rel_id")
    for rel_f in "$rel_state/detached"/*; do
        if [ "$rel_f" != "$1" ] && [ ! -e "$rel_f/meta" ] && read -r rel_was <"$rel_f/name"; then
            rel_s=$(rel_detached_stem "$rel_was") || continue
            if [ "$rel_s" = "$rel_stem" ]; then rm -rf -- "$rel_f"; fi
        fi
    done 2>/dev/null
}

# DIR DOES LIMIT USER KEEPER WORK: starts it. The lock is taken here and goes over to the
# keeper: there is no moment in which two can run.
rel_detached_start() {
    rel_n=0
    # Somebody who asks whether it runs holds the lock for a moment.
    until flock -n 8; do
        rel_n=$((rel_n + 1))
        if [ "$rel_n" -gt 30 ]; then
            printf 'it runs detached already, for something else\n'
            return 1
        fi
        sleep 0.1
    done
    # What a keeper that was killed has left.
    rel_detached_end "$1"
    rm -f -- "$1/meta" "$1/pid" "$1/status" "$1/status.last" "$1/told" || return 1
    if [ -e "$1/log" ]; then mv -f -- "$1/log" "$1/log.former"; fi
    printf '%s\n' "$5" >"$1/keeper" && printf '%s\n' "$6" >"$1/work" && : >"$1/log" &&
        printf '%s\n' "$rel_id" >"$1/name" || return 1
    rel_detached_tidy "$1"
    rel_now
    rel_boot
    rel_detached_own "$1" "$2" "$rel_time" "$rel_boot" || return 1
    setsid sh "$1/keeper" "$1" "$rel_umask" "$3" "$4" "$rel_epoch" "$rel_epoch_clock" </dev/null >/dev/null 2>&1 3>&- 9>&- &
}

# NAME DOES LIMIT USER KEEPER WORK: like rel_do, for a step that goes on without us. Its
# rel_action only makes the ground.
rel_do_detached() {
    rel_dd=$rel_state/detached/$1
    rel_status=0
    if rel_detached_is "$rel_dd" "$2"; then
        # Its way back is this run's now.
        if [ "$rel_d_run" != "$rel_run" ]; then
            rm -f -- "$rel_state/undo/$rel_d_run/$rel_d_seq" "$rel_state/undo/$rel_d_run/$rel_d_seq.late" \
                "$rel_state/undo/$rel_d_run/$rel_d_seq.start" "$rel_state/undo/$rel_d_run/$rel_d_seq.last" \
                "$rel_state/undo/$rel_d_run/$rel_d_seq.check"
        fi
        rel_detached_own "$rel_dd" "$2" "$rel_d_since" "$rel_d_boot" 2>&1 || rel_fail 1
        rel_detached_late "$rel_dd"
    else
        rel_at=0
        mkdir -p -- "$rel_dd" 2>&1 || rel_fail 1
        ( unset rel_nonce; set -eu; umask "$rel_umask"; rel_action ) </dev/null 2>&1 9>&-
        rel_status=$?
        if [ "$rel_status" -ne 0 ]; then rel_fail "$rel_status"; fi
        { rel_detached_start "$rel_dd" "$2" "$3" "$4" "$5" "$6" 2>&1 || rel_fail 1; } 8>>"$rel_dd/held"
        rel_detached_read "$rel_dd"
    fi
    rel_now
    rel_emit detached "$((rel_time - rel_d_since))"
    rel_detached_follow "$rel_dd" "$rel_at"
    rel_detached_state "$rel_dd"
    rel_status=$rel_d_code
    if [ "$rel_d_state" != ended ]; then
        printf 'it was killed, and nobody knows how far it came\n'
        rel_now
        rel_status=137 rel_d_end=$rel_time
        rel_detached_end "$rel_dd"
    fi
    rel_do_verify
    if [ "$rel_status" -ne 0 ]; then
        rel_detached_settle "$rel_dd"
        rel_fail "$rel_status"
    fi
    : >"$rel_tmp/at"
    rel_journal 'done' "$rel_seq" "$rel_id" "$rel_key" "$((rel_d_end - rel_d_since))" 2>&1 || rel_fail 1
    rel_detached_settle "$rel_dd"
    rel_emit 'done' "$rel_seq"
}

# NAME: prints its log until its end, and how that was; nothing is changed.
rel_detached_attach() {
    rel_dd=$rel_state/detached/$1
    rel_detached_late "$rel_dd"
    rel_detached_follow "$rel_dd" "$rel_at"
    rel_detached_state "$rel_dd"
    # A run that joined it may have told the end already.
    if [ "$rel_d_state" != ended ] && { read -r rel_d_code rel_d_end <"$rel_dd/status.last"; } 2>/dev/null; then
        rel_d_state=ended
    fi
    rel_emit attached "$rel_d_state" "$rel_d_code"
}

# EVENT: a line of the journal, in the name of the run that asked for what was read.
rel_detached_journal() {
    ( rel_run=$rel_d_run; rel_journal "$1" "$rel_d_seq" "$rel_d_id" "$rel_d_key" "$rel_d_code" )
}

# NAME: tells the journal how it ended, once. What follows from that is the next run's.
rel_detached_note() {
    rel_dd=$rel_state/detached/$1
    if rel_detached_read "$rel_dd" && [ ! -e "$rel_dd/told" ]; then
        rel_detached_state "$rel_dd"
        if [ "$rel_d_state" = ended ]; then rel_detached_journal ended && : >"$rel_dd/told"; fi
    fi
}

# NAME: ends it for good.
rel_detached_halt() {
    rel_dd=$rel_state/detached/$1
    if ! rel_detached_read "$rel_dd"; then return 0; fi
    rel_detached_stop "$rel_dd"
    rel_detached_state "$rel_dd"
    if [ "$rel_d_state" != ended ]; then rel_d_code=137; fi
    rel_detached_journal stopped && rel_detached_settle "$rel_dd"
    rel_emit attached stopped "$rel_d_code"
}
