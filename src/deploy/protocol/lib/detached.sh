# Detached steps: to start, follow and end them. detached_state.sh has the files.

# RUN SEQ: sets rel_detached_dir to the directory of the detached step with this number of a run.
rel_detached_of() {
    if [ ! -d "$rel_state/detached" ]; then return 1; fi
    for rel_detached_dir in "$rel_state/detached"/*; do
        if rel_detached_read "$rel_detached_dir" && [ "$rel_d_run" = "$1" ] && [ "$rel_d_seq" = "$2" ]; then
            return 0
        fi
    done
    return 1
}

# DIR: removes its files when its end is in the journal. The log stays.
rel_detached_settle() {
    rm -f -- "$1/meta"
    mv -f -- "$1/status" "$1/status.last" 2>/dev/null
    rm -f -- "$1/pid" "$1/told" "$1/keeper" "$1/work" "$1/line"
}

# DIR: ends it, if it runs. Comes after rel_detached_read.
rel_detached_stop() {
    local count=0
    # The supervisor writes its number as the first thing.
    while [ ! -s "$1/pid" ] && rel_detached_runs "$1" && [ "$count" -lt 50 ]; do
        count=$((count + 1))
        sleep 0.1
    done
    rel_detached_end "$1"
}

# DIR: ends its Unix session: TERM, and KILL after ten seconds.
rel_detached_end() {
    local pid='' born='' run=''
    rel_read_boot
    if [ "$rel_d_boot" != "$rel_boot_id" ]; then return 0; fi
    { read -r pid born run <"$1/pid"; } 2>/dev/null || return 0
    if rel_is_session "$pid" "$born" "$run"; then rel_end_group "$pid" 100; fi
}

# DIR OFFSET: prints its log from OFFSET on, until it has ended.
rel_detached_follow() {
    local at="$2" silent=0 over size
    while :; do
        over=1
        if rel_detached_runs "$1"; then over=; fi
        size=$(wc -c <"$1/log") || size=0
        if [ "$((size))" -lt "$at" ]; then at=0; fi
        if [ "$((size))" -gt "$at" ]; then
            tail -c "+$((at + 1))" -- "$1/log" 2>/dev/null | head -c "$((size - at))"
            at=$((size)) silent=0
        elif [ -n "$over" ]; then
            return 0
        fi
        # It may take hours.
        if [ "$silent" -lt 50 ]; then
            silent=$((silent + 1))
            if [ -z "$over" ]; then sleep 0.2; fi
        else
            sleep 1
        fi
    done 2>/dev/null
}

# DIR: sets rel_log_offset to the beginning of a line in the last 64 KiB of its log.
rel_detached_late() {
    local count
    rel_log_offset=$(wc -c <"$1/log") || rel_log_offset=0
    rel_log_offset=$((rel_log_offset - 65536))
    if [ "$rel_log_offset" -le 0 ]; then
        rel_log_offset=0
    else
        count=$(tail -c "+$((rel_log_offset + 1))" -- "$1/log" 2>/dev/null | head -n 1 | wc -c)
        rel_log_offset=$((rel_log_offset + count))
        printf 'the first %s bytes are in %s\n' "$rel_log_offset" "$1/log"
    fi
}

# DIR DOES: whether it is the step at work and runs, or has ended and its end is not in the journal.
rel_detached_is() {
    rel_detached_read "$1" && [ "$rel_d_id" = "$rel_id" ] && [ "$rel_d_key" = "$rel_key" ] &&
        [ "$rel_d_does" = "$2" ] || return 1
    rel_detached_state "$1"
    [ "$rel_d_state" = running ] || [ "$rel_d_state" = ended ]
}

# DIR DOES SINCE BOOT: from here on it belongs to this run.
rel_detached_own() {
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$rel_run" "$rel_seq" "$3" "$4" "$rel_id" "$rel_key" \
        "$2" >"$1/meta.new" && mv -f -- "$1/meta.new" "$1/meta" &&
        printf '%s\n%s\n%s\n%s\n' "$rel_seq" "$rel_id" "$rel_key" "${1##*/}" >"$rel_tmp/at"
}

# ID: prints a step's name without the parts that tell its records apart.
rel_detached_stem() {
    local name="${1#*/}"
    printf '%s' "${1%%/*}/${name%%\[*}"
    # The same step for another host is another one.
    case $1 in
    *'>'*) printf '%s' ">${1##*>}" ;;
    esac
}

# DIR: removes the directories that former releases have left of the same step.
rel_detached_tidy() {
    local stem one was='' other
    stem=$(rel_detached_stem "$rel_id")
    for one in "$rel_state/detached"/*; do
        if [ "$one" != "$1" ] && [ ! -e "$one/meta" ] && read -r was <"$one/name"; then
            other=$(rel_detached_stem "$was") || continue
            if [ "$other" = "$stem" ]; then rm -rf -- "$one"; fi
        fi
    done 2>/dev/null
}

# DIR DOES LIMIT USER SUPERVISOR WORK: starts it. The lock on descriptor 8 is taken here, and passed
# to the supervisor with the descriptor: two can never run at once.
rel_detached_start() {
    local rel_tries=0
    # A query whether it runs holds the lock for a moment.
    until flock -n 8; do
        rel_tries=$((rel_tries + 1))
        if [ "$rel_tries" -gt 30 ]; then
            printf 'it runs detached already, for something else\n'
            return 1
        fi
        sleep 0.1
    done
    # Processes that a killed supervisor has left.
    rel_detached_end "$1"
    rm -f -- "$1/meta" "$1/pid" "$1/status" "$1/status.last" "$1/told" || return 1
    if [ -e "$1/log" ]; then mv -f -- "$1/log" "$1/log.former"; fi
    printf '%s\n' "$5" >"$1/keeper" && printf '%s\n' "$6" >"$1/work" && : >"$1/log" &&
        printf '%s\n' "$rel_id" >"$1/name" || return 1
    rel_detached_tidy "$1"
    rel_now
    rel_read_boot
    rel_detached_own "$1" "$2" "$rel_time" "$rel_boot_id" || return 1
    setsid sh "$1/keeper" "$1" "$rel_umask" "$3" "$4" "$rel_epoch" "$rel_epoch_clock" </dev/null >/dev/null 2>&1 3>&- 9>&- &
}

# NAME DOES LIMIT USER SUPERVISOR WORK: as rel_do, for a detached step. Its rel_action only
# prepares.
rel_do_detached() {
    local rel_detached_dir="$rel_state/detached/$1"
    rel_status=0
    if rel_detached_is "$rel_detached_dir" "$2"; then
        # This run has its undo script now.
        if [ "$rel_d_run" != "$rel_run" ]; then
            rm -f -- "$rel_state/undo/$rel_d_run/$rel_d_seq" "$rel_state/undo/$rel_d_run/$rel_d_seq.late" \
                "$rel_state/undo/$rel_d_run/$rel_d_seq.start" "$rel_state/undo/$rel_d_run/$rel_d_seq.last" \
                "$rel_state/undo/$rel_d_run/$rel_d_seq.check"
        fi
        rel_detached_own "$rel_detached_dir" "$2" "$rel_d_since" "$rel_d_boot" 2>&1 || rel_fail 1
        rel_detached_late "$rel_detached_dir"
    else
        rel_log_offset=0
        mkdir -p -- "$rel_detached_dir" 2>&1 || rel_fail 1
        ( unset rel_nonce; set -eu; umask "$rel_umask"; rel_action ) </dev/null 2>&1 9>&-
        rel_status=$?
        if [ "$rel_status" -ne 0 ]; then rel_fail "$rel_status"; fi
        { rel_detached_start "$rel_detached_dir" "$2" "$3" "$4" "$5" "$6" 2>&1 || rel_fail 1; } 8>>"$rel_detached_dir/held"
        rel_detached_read "$rel_detached_dir"
    fi
    rel_now
    rel_emit detached "$((rel_time - rel_d_since))"
    rel_detached_follow "$rel_detached_dir" "$rel_log_offset"
    rel_detached_state "$rel_detached_dir"
    rel_status=$rel_d_code
    if [ "$rel_d_state" != ended ]; then
        printf 'it was killed, at an unknown point\n'
        rel_now
        rel_status=137 rel_d_end=$rel_time
        rel_detached_end "$rel_detached_dir"
    fi
    rel_do_verify
    if [ "$rel_status" -ne 0 ]; then
        rel_detached_settle "$rel_detached_dir"
        rel_fail "$rel_status"
    fi
    : >"$rel_tmp/at"
    rel_journal 'done' "$rel_seq" "$rel_id" "$rel_key" "$((rel_d_end - rel_d_since))" 2>&1 || rel_fail 1
    rel_detached_settle "$rel_detached_dir"
    rel_emit 'done' "$rel_seq"
}

# NAME: prints its log until its end, and reports its exit status. It changes nothing.
rel_detached_attach() {
    local rel_detached_dir="$rel_state/detached/$1"
    rel_detached_late "$rel_detached_dir"
    rel_detached_follow "$rel_detached_dir" "$rel_log_offset"
    rel_detached_state "$rel_detached_dir"
    # Another run may have put its end into the journal already.
    if [ "$rel_d_state" != ended ] && { read -r rel_d_code rel_d_end <"$rel_detached_dir/status.last"; } 2>/dev/null; then
        rel_d_state=ended
    fi
    rel_emit attached "$rel_d_state" "$rel_d_code"
}

# EVENT: writes a line of the journal in the name of the run that the detached step belongs to.
rel_detached_journal() {
    ( rel_run=$rel_d_run; rel_journal "$1" "$rel_d_seq" "$rel_d_id" "$rel_d_key" "$rel_d_code" )
}

# NAME: writes its end to the journal, once. The next run handles it.
rel_detached_note() {
    local rel_detached_dir="$rel_state/detached/$1"
    if rel_detached_read "$rel_detached_dir" && [ ! -e "$rel_detached_dir/told" ]; then
        rel_detached_state "$rel_detached_dir"
        if [ "$rel_d_state" = ended ]; then rel_detached_journal ended && : >"$rel_detached_dir/told"; fi
    fi
}

# NAME: ends it, and writes that to the journal.
rel_detached_halt() {
    local rel_detached_dir="$rel_state/detached/$1"
    if ! rel_detached_read "$rel_detached_dir"; then return 0; fi
    rel_detached_stop "$rel_detached_dir"
    rel_detached_state "$rel_detached_dir"
    if [ "$rel_d_state" != ended ]; then rel_d_code=137; fi
    rel_detached_journal stopped && rel_detached_settle "$rel_detached_dir"
    rel_emit attached stopped "$rel_d_code"
}
