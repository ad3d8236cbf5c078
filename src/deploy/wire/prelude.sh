# The words that programs, guards and undo scripts are written in.
#
# POSIX sh; runs in dash, bash and busybox. Set before it by rel: rel_nonce,
# rel_state, rel_root, rel_run, rel_who, rel_purpose, rel_ttl. Functions that undo scripts call are a
# stored format, because a later rel runs them: they may gain, never change.

rel_emit() { printf '\036%s %s\n' "$rel_nonce" "$*"; }

# --- the lease --------------------------------------------------------------
# The rest of it is the guard's (lease.sh), with the files that it lies in.

rel_tab='	'
rel_newline='
'

# Sets rel_clock: hundredths of a second, by a clock that nobody sets where there is one.
rel_tick() {
    if { read -r rel_clock rel_idle </proc/uptime; } 2>/dev/null; then
        rel_clock=${rel_clock%.*}${rel_clock#*.}
    else
        until rel_clock=$(date +%s) || [ "$?" -lt 128 ]; do :; done
        rel_clock=${rel_clock}00
    fi
}

# Sets rel_time: seconds since the epoch. The host's date is asked once a session; the time
# since then is added, which takes no process.
rel_now() {
    rel_tick
    if [ -z "${rel_epoch:-}" ]; then
        # One that was killed is asked again.
        until rel_epoch=$(date +%s) || [ "$?" -lt 128 ]; do :; done
        rel_epoch_clock=$rel_clock
    fi
    rel_time=$((rel_epoch + (rel_clock - rel_epoch_clock) / 100))
}

# FILE: reads a lease into rel_h_…; fails when there is none.
rel_read_lease() {
    rel_h_token=
    { IFS=$rel_tab read -r rel_h_token rel_h_who rel_h_run rel_h_purpose rel_h_since rel_h_pid \
        rel_h_born rel_h_ttl rel_h_clock rel_h_tmp <"$1"; } 2>/dev/null || :
    [ -n "$rel_h_token" ]
}

# Whether somebody is at taking over from the holder that was read.
rel_is_revoked() {
    { IFS=$rel_tab read -r rel_s rel_b <"$rel_state/revoked"; } 2>/dev/null || return 1
    [ "$rel_s" = "$rel_h_token" ]
}

# Whether the holder that was read can still act: its guard lives and has renewed in time.
rel_is_live() {
    if rel_is_revoked; then return 1; fi
    rel_birth "$rel_h_pid" && [ "$rel_b" = "$rel_h_born" ] || return 1
    { read -r rel_s rel_beat <"$rel_state/beat"; } 2>/dev/null || rel_s=
    if [ "$rel_s" != "$rel_h_token" ]; then rel_beat=$rel_h_clock; fi
    rel_tick
    [ "$((rel_clock - rel_beat))" -le "$((rel_h_ttl))" ]
}

# Reads a person's hold into rel_f_…; fails when there is none, or none any more.
rel_read_freeze() {
    rel_f_token=
    { IFS=$rel_tab read -r rel_f_token rel_f_who rel_f_reason rel_f_since rel_f_until \
        <"$rel_state/freeze"; } 2>/dev/null || :
    if [ -z "$rel_f_token" ]; then return 1; fi
    if [ "$rel_f_until" = - ]; then return 0; fi
    rel_now
    [ "$rel_time" -lt "$rel_f_until" ]
}

rel_is_frozen() { rel_read_freeze && [ "$rel_f_who" != "$rel_who" ]; }

# The holder that was read, as one line: kind, token, who, run, purpose, age, -.
rel_print_lease() {
    rel_now
    printf 'run\t%s\t%s\t%s\t%s\t%s\t-\n' "$rel_h_token" "$rel_h_who" "$rel_h_run" \
        "$rel_h_purpose" "$((rel_time - rel_h_since))"
}

# A person's hold that was read: kind, token, who, -, reason, age and rest in seconds.
rel_print_freeze() {
    rel_now
    rel_rest=-
    if [ "$rel_f_until" != - ]; then rel_rest=$((rel_f_until - rel_time)); fi
    printf 'freeze\t%s\t%s\t-\t%s\t%s\t%s\n' "$rel_f_token" "$rel_f_who" "$rel_f_reason" \
        "$((rel_time - rel_f_since))" "$rel_rest"
}

# Says who holds this environment: a line for a person, one for a run.
rel_held() {
    if rel_read_freeze; then rel_print_freeze; fi
    if rel_read_lease "$rel_state/lease" && rel_is_live; then rel_print_lease; fi
}

# Whether this run is still the holder. A run that asks only holds nothing.
rel_holds() {
    rel_read_lease "$rel_state/lease" && [ "$rel_h_token" = "${rel_token:-}" ] && ! rel_is_revoked
}

# Ends a program that acts for a holder and is none any more; the guard tells by whom.
rel_must_hold() { if [ -n "${rel_token:-}" ] && ! rel_holds; then exit 75; fi; }

# Holds the fence, with others who act as the holder. One that was killed is asked again.
rel_stand() {
    while :; do
        flock -s 9 && return
        if [ "$?" -lt 128 ]; then return 1; fi
    done
}

# A program's first act: as long as it lives nobody takes the lease over. What it runs does
# not hold the fence, or what goes on in the background would hold it for ever.
rel_enter() {
    if [ -z "${rel_token:-}" ]; then return 0; fi
    exec 9>>"$rel_state/fence"
    rel_birth "$$"
    printf '%s %s\n' "$$" "$rel_b" >"$rel_tmp/work" 2>/dev/null
    rel_stand || exit 1
    rel_must_hold
    rel_now
}

# One line of the journal: EVENT SEQ ID KEY DETAIL, `-` where there is none. Sets rel_unwritten
# where it can not be written.
rel_journal() {
    rel_now
    printf '1\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$rel_time" "$rel_run" \
        "$2" "$3" "$4" "$rel_who" "$5" >>"$rel_state/journal" || { rel_unwritten=1; return 1; }
}

# TEXT: sets rel_q to it as one word that sh reads back.
rel_quote() {
    rel_q= rel_rest=$1
    while :; do
        case $rel_rest in
        *\'*) rel_q="$rel_q${rel_rest%%\'*}'\\''" rel_rest=${rel_rest#*\'} ;;
        *) break ;;
        esac
    done
    rel_q="'$rel_q$rel_rest'"
}

# NAME ARGUMENT...: sets rel_call to the line that calls it.
rel_call() {
    rel_call=$1
    shift
    for rel_c in "$@"; do
        rel_quote "$rel_c"
        rel_call="$rel_call $rel_q"
    done
}

# Adds a line to the way back of the step at work. `late` ones wait until all hosts have gone back,
# because a restart must find the former files; `last` ones wait for these as well. `start` ones
# start what may depend on such a service: with the `late` ones, in the order of the steps, where
# there are any; else in their turn.
rel_undo() { printf '%s\n' "$1" >>"$rel_state/undo/$rel_run/$rel_seq"; }
rel_undo_late() { printf '%s\n' "$1" >>"$rel_state/undo/$rel_run/$rel_seq.late"; }
rel_undo_start() { printf '%s\n' "$1" >>"$rel_state/undo/$rel_run/$rel_seq.start"; }
# What a step that only asks has found is not true any more when its run has gone back.
rel_only_asks() { : >"$rel_state/undo/$rel_run/$rel_seq.asks"; }
rel_rollback_check() { printf '%s\n' "$1" >>"$rel_state/undo/$rel_run/$rel_seq.check"; }
rel_undo_last() { printf '%s\n' "$1" >>"$rel_state/undo/$rel_run/$rel_seq.last"; }

# --- steps -----------------------------------------------------------------

# SEQ ID KEY: from here on until rel_do, this step is at work. What can not be written
# down is not begun.
rel_step() {
    rel_must_hold
    rel_seq=$1 rel_id=$2 rel_key=$3
    rel_emit start "$1"
    if ! {
        { [ -d "$rel_state/undo/$rel_run" ] || mkdir -p -- "$rel_state/undo/$rel_run"; } &&
            rel_no_way_back "$rel_state/undo/$rel_run/$rel_seq" &&
            printf '%s\n%s\n%s\n' "$1" "$2" "$3" >"$rel_tmp/at" &&
            rel_journal start "$1" "$2" "$3" -
    } 2>&1; then
        rel_fail 1
    fi
    rel_verifies=
}

# FILE: removes what a former try of the step has laid down there.
rel_no_way_back() {
    for rel_c in "$1" "$1.late" "$1.start" "$1.last" "$1.check" "$1.asks"; do
        if [ -e "$rel_c" ]; then rm -f -- "$rel_c"; fi
    done
}

rel_fail() {
    : >"$rel_tmp/at"
    rel_journal failed "$rel_seq" "$rel_id" "$rel_key" "$1" 2>&1
    rel_emit failed "$rel_seq" "$1"
    exit 1
}

# After an action that succeeded: runs rel_verify, if the step has one.
rel_do_verify() {
    if [ "$rel_status" -eq 0 ] && [ -n "$rel_verifies" ]; then
        ( unset rel_nonce; set -eu; umask "$rel_umask"; rel_verify ) </dev/null 2>&1 9>&-
        rel_status=$?
    fi
}

# Runs rel_action, then rel_verify, neither of which can speak for rel. Not inside `if`: there sh ignores `set -e`.
rel_do() {
    rm -f -- "$rel_tmp/warned"
    ( unset rel_nonce; set -eu; umask "$rel_umask"; rel_action ) </dev/null 2>&1 9>&-
    rel_status=$?
    rel_do_verify
    if [ -s "$rel_tmp/warned" ]; then
        while IFS= read -r rel_l; do rel_emit warned "$rel_l"; done <"$rel_tmp/warned"
    fi
    if [ "$rel_status" -ne 0 ]; then rel_fail "$rel_status"; fi
    : >"$rel_tmp/at"
    rel_journal 'done' "$rel_seq" "$rel_id" "$rel_key" - 2>&1 || rel_fail 1
    rel_emit 'done' "$rel_seq"
}

# NAME VALUE: remembers a value in the journal, as {notes.NAME}; rel_drop forgets it.
rel_note() { rel_column "$2"; rel_journal note "$rel_seq" "$rel_use" "$1" "$rel_c"; }
rel_drop() { rel_column "$2"; rel_journal drop "$rel_seq" "$rel_use" "$1" "$rel_c"; }

# TEXT: sets rel_c to it as one column of the journal.
rel_column() {
    rel_c=$1
    case $1 in *[!-_./:@A-Za-z0-9]*) rel_c=$(printf '%s' "$1" | tr '\t\n' '  ') ;; esac
}

# TEXT: a warning of the step at work, for a person; the step goes on.
rel_warn() { printf '%s\n' "$1" >>"$rel_tmp/warned"; }

# NOTE KEEP DIR CURRENT FORMER VALUES...: removes the oldest noted ones below DIR, with
# their marks, until KEEP are left; never CURRENT or FORMER, and nothing un-noted. One that
# can not be removed stays noted: the next time tries again.
rel_prune() {
    rel_noted=$1 rel_dir=$3 rel_keeps=$2
    shift 3
    rel_old "$rel_keeps" "$@" | while IFS= read -r rel_v; do
        if [ -d "$rel_dir" ] &&
            ! rel_words=$( { rel_enter_dir "$rel_dir/$rel_v" && rm -rf -- "./$rel_name" "./$rel_name.rel-copy"; } 2>&1 ); then
            rel_warn "$rel_dir/$rel_v could not be removed, and will be tried again: ${rel_words%%"$rel_newline"*}"
            continue
        fi
        rel_drop "$rel_noted" "$rel_v"
    done
}

# KEEP CURRENT FORMER VALUES...: those of the oldest that go, until KEEP are left; never
# CURRENT or FORMER. One a line.
rel_old() {
    rel_keep=$1 rel_now=$2 rel_former=$3
    shift 3
    rel_n=1
    for rel_v in "$@"; do
        if [ "$rel_v" != "$rel_now" ]; then rel_n=$((rel_n + 1)); fi
    done
    for rel_v in "$@"; do
        if [ "$rel_n" -le "$rel_keep" ]; then break; fi
        if [ "$rel_v" = "$rel_now" ] || [ "$rel_v" = "$rel_former" ]; then continue; fi
        printf '%s\n' "$rel_v"
        rel_n=$((rel_n - 1))
    done
}

# SCRIPT FILTER: the SHA-256 of what one prints and the other lets through. A pipe tells only of
# its last command: each one says that it came to its end.
rel_digest() {
    rel_said=$(
        {
            { eval "$1" && echo ended >&3; } |
                { eval "$2" && echo ended >&3; } |
                { sha256sum && echo ended >&3; }
        } 3>&1
    )
    rel_n=0
    for rel_c in $rel_said; do
        case $rel_c in
        ended) rel_n=$((rel_n + 1)) ;;
        -) ;;
        *) rel_sum=$rel_c ;;
        esac
    done
    if [ "$rel_n" -ne 3 ]; then
        printf 'it was not read to its end\n' >&2
        return 1
    fi
    printf '%s\n' "$rel_sum"
}

# --- actions ---------------------------------------------------------------
# Those that make files stand in files.sh.

# SECONDS PAUSE SCRIPT: tries until it succeeds; 120 says that it never will.
rel_wait() (
    set +e
    rel_now
    rel_end=$((rel_time + $1))
    while :; do
        ( set -eu; eval "$3" ) >"$rel_tmp/words" 2>&1
        rel_s=$?
        if [ "$rel_s" -eq 0 ]; then exit 0; fi
        rel_now
        if [ "$rel_s" -eq 120 ] || [ "$rel_time" -ge "$rel_end" ]; then
            tail -n 20 "$rel_tmp/words"
            if [ "$rel_s" -ne 120 ]; then printf 'it did not hold within %s s\n' "$1"; fi
            exit 1
        fi
        sleep "$2"
    done
)

# USER SCRIPT: runs a script as another user. Nobody but that user and root may end what it
# starts, so it watches a line that ends with us, and then ends all that is its own.
rel_as() {
    rel_me=$(id -un)
    if [ "$rel_me" = "$1" ]; then
        ( set -eu; eval "$2" )
        return
    fi
    rel_inner='
        export REL_RUN_ID="$2"
        exec 3<&0
        ( trap "" TERM; cat <&3 >/dev/null; kill -TERM 0; sleep 1; kill -KILL 0 ) &
        rel_watch=$!
        ( set -eu; eval "$1" ) </dev/null 3<&- &
        wait "$!"
        rel_s=$?
        kill -KILL "$rel_watch" 2>/dev/null
        exit "$rel_s"'
    if [ "$rel_me" = root ] && command -v runuser >/dev/null 2>&1; then
        # As sudo does: what stands in the environment of root is not for others.
        case $1 in
        *[!a-zA-Z0-9._-]*) rel_home=/ ;;
        *) eval "rel_home=~$1" ;;
        esac
        set -- "$2" runuser -u "$1" -- env -i "HOME=$rel_home" "USER=$1" "LOGNAME=$1" "PATH=$PATH"
        for rel_one in LANG LANGUAGE LC_ALL LC_CTYPE LC_MESSAGES LC_TIME TERM TZ; do
            eval "rel_value=\${$rel_one:-}"
            if [ -n "$rel_value" ]; then set -- "$@" "$rel_one=$rel_value"; fi
        done
    elif command -v sudo >/dev/null 2>&1; then
        set -- "$2" sudo -n -u "$1" --
    elif command -v doas >/dev/null 2>&1; then
        set -- "$2" doas -n -u "$1"
    else
        printf 'nothing here lets %s run commands as %s: no runuser, sudo or doas\n' "$rel_me" "$1"
        return 1
    fi
    rel_script=$1
    shift
    if ! "$@" sh -c : </dev/null; then
        printf '%s may not run commands so: %s; allow it without a password\n' "$rel_me" "$*"
        return 1
    fi
    rm -f -- "$rel_tmp/line"
    mkfifo "$rel_tmp/line"
    sleep 2147483 >"$rel_tmp/line" 2>/dev/null &
    rel_line=$!
    rel_s=0
    "$@" sh -c "$rel_inner" sh "$rel_script" "$rel_run" <"$rel_tmp/line" || rel_s=$?
    kill -KILL "$rel_line" 2>/dev/null || :
    return "$rel_s"
}

# --- processes --------------------------------------------------------------

# PID: sets rel_stat to what the kernel says of a process behind its name. A name, which the
# process chooses, may hold line ends and brackets.
rel_read_stat() {
    rel_stat=
    {
        while IFS= read -r rel_more; do rel_stat=$rel_stat$rel_more; done <"/proc/$1/stat"
    } 2>/dev/null
    rel_stat=${rel_stat##*) }
    [ -n "$rel_stat" ]
}

# SESSION: its processes that are there and not only waiting to be reaped. What `sed` finds can be
# part of a name.
rel_members() {
    for rel_one in $(
        sed -n "s/^\([0-9]*\) (.*) [^ZX] [0-9]* [0-9]* $1 .*/\1/p" /proc/[0-9]*/stat 2>/dev/null
    ); do
        # STATE PARENT GROUP SESSION ...
        if rel_read_stat "$rel_one"; then
            rel_more=${rel_stat#* * * }
            case $rel_stat:${rel_more%% *} in
            [!ZX]*":$1") printf '%s\n' "$rel_one" ;;
            esac
        fi
    done
}

# SESSION BORN RUN: whether it is still the session whose leader was born then. Once all of a
# session has ended its number can be another's, whose leader can have ended as well. So without
# the leader, or where BORN is not known, one of its processes must have been started for RUN.
rel_is_session() {
    if [ -n "$2" ] && rel_birth "$1"; then
        [ "$rel_b" = "$2" ]
        return
    fi
    for rel_one in $(rel_members "$1"); do
        rel_one=$(tr '\0' '\n' 2>/dev/null <"/proc/$rel_one/environ" | sed -n "/^REL_RUN_ID=$3\$/p")
        if [ -n "$rel_one" ]; then return 0; fi
    done 2>/dev/null
    return 1
}

# LEADER [TENTHS]: ends a program with its session: its group, and groups of jobs within it;
# what is still there after so many tenths of a second is killed. rel_is_session comes before.
rel_end_group() {
    rel_most=${2:-10}
    if [ -e /proc/self/stat ]; then
        rel_m=$(rel_members "$1")
        if [ -z "$rel_m" ]; then return 0; fi
        kill -TERM $rel_m 2>/dev/null
        rel_n=0
        while [ "$rel_n" -lt "$rel_most" ] && [ -n "$rel_m" ]; do
            sleep 0.1
            rel_n=$((rel_n + 1))
            rel_m=$(rel_members "$1")
        done
        # Twice: one that was just being forked is not in the list.
        while [ -n "$rel_m" ] && [ "$rel_n" -lt "$((rel_most + 10))" ]; do
            kill -KILL -"$1" $rel_m 2>/dev/null
            rel_n=$((rel_n + 1))
            rel_m=$(rel_members "$1")
        done
        return 0
    fi
    kill -TERM -"$1" 2>/dev/null || return 0
    rel_n=0
    while [ "$rel_n" -lt "$rel_most" ] && kill -0 -"$1" 2>/dev/null; do
        sleep 0.1
        rel_n=$((rel_n + 1))
    done
    kill -KILL -"$1" 2>/dev/null
    return 0
}

# --- services --------------------------------------------------------------

# PID: sets rel_b to when it was born, in words that no later process of that number shares;
# `gone` and a failure for one that is gone or only waits to be reaped.
rel_birth() {
    rel_b=gone
    if [ -e /proc/self/stat ]; then
        rel_read_stat "$1" || return 1
        set -f
        set -- $rel_stat
        set +f
        if [ "$1" = Z ]; then return 1; fi
        shift 19
        rel_stat=
        { read -r rel_stat </proc/sys/kernel/random/boot_id; } 2>/dev/null || :
        rel_b=$1-$rel_stat
    else
        set -f
        # shellcheck disable=SC2046
        set -- $(ps -o lstart= -p "$1")
        set +f
        if [ "$#" -eq 0 ]; then return 1; fi
        rel_b=$1-$2-$3-$4-$5
    fi
}

rel_service_alive() {
    { read -r rel_pid rel_born <"$rel_state/services/$1/pid"; } 2>/dev/null || return 1
    rel_birth "$rel_pid" && [ "$rel_b" = "$rel_born" ]
}

# NAME [DIGEST]: stops a service; with the digest of how it was started, as the way back of its
# first start.
rel_service_stop() {
    if [ -n "${2:-}" ] && [ -d "$rel_state/services/$1" ]; then
        : >"$rel_state/services/$1/unstarted"
    fi
    rel_service_alive "$1" || return 0
    rel_sd=$rel_state/services/$1
    if [ -s "$rel_sd/stop" ]; then
        ( set -eu; . "$rel_sd/stop" ) </dev/null || printf 'the stop command of %s failed\n' "$1"
    else
        kill -TERM -"$rel_pid" 2>/dev/null || kill -TERM "$rel_pid" 2>/dev/null || :
    fi
    rel_n=0
    while rel_service_alive "$1"; do
        rel_n=$((rel_n + 1))
        if [ "$rel_n" -gt 100 ]; then
            printf '%s did not stop within 10 s and is killed\n' "$1"
            kill -KILL -"$rel_pid" 2>/dev/null || kill -KILL "$rel_pid" 2>/dev/null || :
        fi
        if [ "$rel_n" -gt 120 ]; then return 1; fi
        sleep 0.1
    done
    rm -f -- "$rel_sd/pid"
}

# Starts what the service's run script says, in a session of its own, with no
# descriptor of ours: the connection must be able to end. It waits until its number is written
# down; where that does not come about it never begins, or nobody could end it.
rel_service_go() {
    local rel_foreign_ok="${rel_foreign_ok:-}" from="$PWD"
    # A way back that is run twice starts one.
    if rel_service_alive "$1"; then return 0; fi
    rel_sd=$rel_state/services/$1
    # What stopped it found it running because of a run that has gone back before it.
    if [ -e "$rel_sd/unstarted" ]; then return 0; fi
    if [ -e "$rel_sd/foreign-ok" ]; then rel_foreign_ok=1; fi
    rel_l=$(cat -- "$rel_sd/log")
    rel_open_log "$rel_l" || return 1
    cd -- "$from" || return 1
    rm -f -- "$rel_tmp/go"
    mkfifo -- "$rel_tmp/go"
    exec 7<>"$rel_tmp/go"
    setsid sh -c 'unset REL_RUN_ID; read -r rel_go && exec sh "$1" </dev/null' sh "$rel_sd/run" \
        <"$rel_tmp/go" >&6 2>&1 6>&- 7>&- &
    rel_pid=$!
    rel_birth "$rel_pid" || :
    printf '%s %s\n' "$rel_pid" "$rel_b" >"$rel_sd/pid.new"
    mv -f -- "$rel_sd/pid.new" "$rel_sd/pid"
    echo go >&7
    exec 6>&- 7>&-
    # A command that is wrong ends at once; the rest is for its own readiness.
    sleep 0.2
    rel_ok=1
    if rel_service_alive "$1" && [ -s "$rel_sd/ready" ]; then
        rel_ready=$(cat "$rel_sd/ready")
        rel_within=$(cat "$rel_sd/within")
        rel_call rel_service_alive "$1"
        rel_wait "$rel_within" 0.2 "$rel_call || exit 120
$rel_ready" || rel_ok=
    fi
    if [ -z "$rel_ok" ] || ! rel_service_alive "$1"; then
        if rel_service_alive "$1"; then printf '%s is not ready\n' "$1"; else printf '%s has ended\n' "$1"; fi
        if rel_is_readable "$rel_l"; then tail -n 20 -- "$rel_l" 2>/dev/null; fi
        printf 'more in %s\n' "$rel_l"
        return 1
    fi
    rel_tick
    printf '%s %s\n' "$rel_clock" "$1" >>"$rel_tmp/started"
}

# NAME LOG RUN STOP READY SECONDS: scripts. A service that runs is restarted. Its way back has the
# digest of RUN, by which rel_prove_step knows what was left.
rel_service() {
    rel_sd=$rel_state/services/$1
    rel_sum=$(printf '%s\n' "$3" | sha256sum) || return 1
    rel_sum=${rel_sum%% *}
    mkdir -p -- "$rel_sd"
    rm -f -- "$rel_sd/unstarted"
    if [ -n "${rel_foreign_ok:-}" ]; then : >"$rel_sd/foreign-ok"; else rm -f -- "$rel_sd/foreign-ok"; fi
    if rel_service_alive "$1"; then
        cp -p -- "$rel_sd/run" "$rel_state/undo/$rel_run/$rel_seq.run"
        rel_call rel_service_back "$1" "$rel_state/undo/$rel_run/$rel_seq.run" "$rel_sum"
        rel_undo_late "$rel_call"
        rel_service_stop "$1"
    else
        rel_call rel_service_stop "$1" "$rel_sum"
        rel_undo "$rel_call"
    fi
    printf '%s\n' "$3" >"$rel_sd/run"
    printf '%s' "$4" >"$rel_sd/stop"
    printf '%s' "$2" >"$rel_sd/log"
    printf '%s' "$5" >"$rel_sd/ready"
    printf '%s' "$6" >"$rel_sd/within"
    rel_service_go "$1"
}

rel_service_back() {
    rel_service_stop "$1"
    cp -p -- "$2" "$rel_state/services/$1/run"
    rel_service_go "$1"
}

# START STATUS STOP SECONDS: a service that has a manager already. START starts it, or
# restarts it where it runs. The way back: restarted if it was up, else stopped.
rel_managed() {
    set +e
    ( set -eu; eval "$2" ) >/dev/null 2>&1
    rel_s=$?
    # One that was killed has not answered.
    if [ "$rel_s" -gt 128 ]; then
        printf 'what asks whether it runs was killed\n'
        return "$rel_s"
    fi
    if [ "$rel_s" -eq 0 ]; then
        rel_undo_late "$1"
    elif [ -n "$3" ]; then
        rel_undo "$3"
    fi
    ( set -eu; eval "$1" )
    rel_s=$?
    if [ "$rel_s" -ne 0 ]; then return "$rel_s"; fi
    rel_wait "$4" 0.2 "$2"
}

# --- scopes ------------------------------------------------------------------

# NAME LEAVE: from here on LEAVE is owed. It is written down before the scope is entered;
# the end of the run, however it ends, pays it, or else the next run.
rel_scope() {
    rel_call rel_scope_leave "$1"
    rel_undo "$rel_call"
    rel_scope_owe "$1" "$2"
}

# NAME LEAVE: the same for a way back, which has none itself. What is entered next may outlive
# a power cut: so must this.
rel_scope_owe() {
    mkdir -p -- "$rel_state/scopes"
    {
        printf '# %s %s\n# %s\n' "$rel_run" "$rel_seq" "${rel_id:--}"
        rel_call rel_state "$rel_state"
        printf 'rel_state=%s rel_umask=%s\n%s\n%s\n' "${rel_call#* }" "$rel_umask" \
            "${rel_functions:-}" "$2"
    } >"$rel_state/scopes/.$1.new"
    mv -f -- "$rel_state/scopes/.$1.new" "$rel_state/scopes/$1"
    rel_flush "$rel_state/scopes/$1" "$rel_state/scopes"
}

# PATH...: writes what is known of files and directories to the disk.
rel_flush() { sync -- "$@" 2>/dev/null || sync; }

# NAME: nothing is owed any more.
rel_scope_end() { rm -f -- "$rel_state/scopes/$1"; }

# NAME: pays what is owed, if anything is. A shell of its own: `set -e` must hold in it.
rel_scope_leave() {
    if [ ! -s "$rel_state/scopes/$1" ]; then return 0; fi
    ( umask "$rel_umask"; cd -- "$rel_root"; exec sh -eu "$rel_state/scopes/$1" ) </dev/null 9>&- &&
        rel_scope_end "$1"
}

# FILE: sets rel_1 and rel_2 to the run and the step that entered a scope, rel_3 to its id.
rel_read_scope() {
    { read -r rel_h rel_1 rel_2; read -r rel_h rel_3; } <"$1"
    case $rel_2 in *[!0-9]* | '') rel_2=0 ;; esac
}

# EVENT: pays all that is owed, what was entered last first; the journal gets EVENT for each
# step that entered one. rel_owed is a scope that could not be left, and rel_why what its way out
# said last. The scope rel_abandons is given up for rel_reason if it can not be left.
rel_scopes_leave() {
    rel_owed=
    rel_below=2147483647
    while :; do
        rel_top=-1
        for rel_f in "$rel_state/scopes"/*; do
            if [ ! -s "$rel_f" ]; then continue; fi
            rel_read_scope "$rel_f"
            if [ "$rel_2" -lt "$rel_below" ] && [ "$rel_2" -gt "$rel_top" ]; then rel_top=$rel_2; fi
        done
        if [ "$rel_top" -lt 0 ]; then break; fi
        rel_below=$rel_top
        for rel_f in "$rel_state/scopes"/*; do
            if [ ! -s "$rel_f" ]; then continue; fi
            rel_read_scope "$rel_f"
            if [ "$rel_2" -ne "$rel_top" ]; then continue; fi
            if rel_scope_leave "${rel_f##*/}" >"$rel_state/scopes.last" 2>&1; then
                rel_journal "$1" "$rel_2" "$rel_3" "$rel_1" -
            elif [ "${rel_f##*/}" = "${rel_abandons:-}" ] && rel_scope_abandon "$rel_f"; then
                rel_journal "$1" "$rel_2" "$rel_3" "$rel_1" -
            else
                rel_owed=${rel_f##*/}
                rel_why=$(tail -n 5 -- "$rel_state/scopes.last" | tr '\t\n' '  ')
            fi
            cat -- "$rel_state/scopes.last" >>"$rel_state/scopes.log"
        done
    done
}

# --- what is due -------------------------------------------------------------

# DIR APPLIED: the files of DIR that are not among APPLIED, in order, as `DIGEST NAME`.
# One that was applied and has changed since is told by a `!`, and is not due.
rel_due() (
    LC_ALL=C
    if [ ! -d "$1" ]; then printf '! there is no directory %s\n' "$1"; fi
    for rel_f in "$1"/*; do
        if [ ! -f "$rel_f" ]; then continue; fi
        rel_sum=$(sha256sum <"$rel_f") || exit 1
        rel_line="${rel_sum%% *} ${rel_f##*/}"
        rel_seen=
        while IFS= read -r rel_l; do
            if [ "$rel_l" = "$rel_line" ]; then rel_seen=same; break; fi
            if [ "${rel_l#* }" = "${rel_f##*/}" ]; then rel_seen=other; fi
        done <<END
$2
END
        case $rel_seen in
        same) ;;
        other) printf '! %s was applied, and has changed since\n' "${rel_f##*/}" ;;
        *) printf '%s\n' "$rel_line" ;;
        esac
    done
)

# NAME: sets rel_flat to it as services are named: without slashes.
rel_flat() {
    rel_flat=$1
    while :; do
        case $rel_flat in
        */*) rel_flat=${rel_flat%%/*}_${rel_flat#*/} ;;
        *) return 0 ;;
        esac
    done
}

# PREFIX NAME: stops every service whose name starts with PREFIX, but NAME.
rel_retire() {
    rel_flat "$2"
    rel_live=$rel_flat
    rel_flat "$1"
    for rel_d in "$rel_state/services/$rel_flat"*; do
        rel_name=${rel_d##*/}
        if [ "$rel_name" != "$rel_live" ] && rel_service_alive "$rel_name"; then
            printf 'stops %s\n' "$rel_name"
            rel_call rel_service_go "$rel_name"
            rel_undo_start "$rel_call"
            rel_service_stop "$rel_name"
        fi
    done
}

# WANTED...: removes the artifacts that are not among these digests.
rel_tidy_blobs() {
    for rel_d in "$rel_state/blobs"/*; do
        if [ ! -e "$rel_d" ] && [ ! -L "$rel_d" ]; then continue; fi
        case " $* " in
        *" ${rel_d##*/} "*) ;;
        *) rm -rf -- "$rel_d" ;;
        esac
    done
}

# --- the way back ----------------------------------------------------------

# RUN SEQ ID SUFFIX OLDER...: an attempt at the step that goes back later, RUN/SEQ, found what was
# there before both. So nothing is started again because this one found it running, and the step is
# undone also where this one had nothing to change. One that was begun and then done by this one, as
# `!` says, is one deed with it: the same way back is not run twice.
rel_drop_back() {
    local own="$rel_state/undo/$1/$2" run="$1" seq="$2" id="$3" is_older='' older has was is_one when
    shift 4
    for older in "$@"; do
        is_one=
        case $older in
        '!'*) is_one=1 ;;
        esac
        older=$rel_state/undo/${older#!}
        if [ -s "$older" ] || [ -s "$older.late" ]; then is_older=1; fi
        for when in '' .start .last; do
            if [ -z "$is_one" ] || [ ! -s "$own$when" ] || [ ! -s "$older$when" ]; then continue; fi
            was=$(cat -- "$older$when") && has=$(cat -- "$own$when") || continue
            if [ "$was" = "$has" ]; then rm -f -- "$own$when"; fi
        done
    done
    if [ -z "$is_older" ]; then return 0; fi
    rm -f -- "$own.late"
    if [ ! -s "$own" ] && [ ! -s "$own.start" ] && [ ! -s "$own.last" ]; then
        rel_must_hold
        rel_journal undone "$seq" "$id" "$run" - || return 0
        rel_emit dropped "$seq"
    fi
}

# RUN SEQ ID SUFFIX OLDER...: runs the stored way back of one step, if it has one.
rel_undo_step() {
    rel_script=$rel_state/undo/$1/$2$4
    rel_away=
    if [ -z "$4" ]; then
        rel_drop_back "$@"
        if rel_detached_of "$1" "$2"; then rel_away=$rel_dd; fi
    fi
    if [ ! -s "$rel_script" ] && [ -z "$rel_away" ]; then
        if [ -e "$rel_script.asks" ]; then
            rel_must_hold
            if rel_journal undone "$2" "$3" "$1" -; then rm -f -- "$rel_script.asks"; fi
        fi
        return 0
    fi
    rel_must_hold
    rel_emit start "$2"
    rm -f -- "$rel_tmp/kept"
    # What goes on would spoil what is brought back.
    if [ -n "$rel_away" ]; then
        rel_detached_stop "$rel_away"
        rel_detached_settle "$rel_away"
        mkdir -p -- "$rel_state/undo/$1"
        : >>"$rel_script"
    fi
    rel_was_run=$rel_run rel_run=$1 rel_seq=$2
    ( unset rel_nonce; set -eu; umask "$rel_umask"; cd -- "$rel_root"; . "$rel_script" ) </dev/null 2>&1 9>&-
    rel_status=$?
    rel_run=$rel_was_run
    if [ -s "$rel_tmp/kept" ]; then rel_emit kept "$(tr '\n' ' ' <"$rel_tmp/kept")"; fi
    rel_proven=
    if [ "$rel_status" -eq 0 ] && [ -z "$rel_away" ] && rel_is_back "$1" "$2" "$4"; then
        rel_proven=proven
    fi
    # Written down before the script goes: twice is better than not at all.
    if [ "$rel_status" -eq 0 ]; then rel_journal undone "$2" "$3" "$1" - 2>&1 || rel_status=1; fi
    if [ "$rel_status" -eq 0 ]; then
        rm -f -- "$rel_script"
        rel_emit 'done' "$2" $rel_proven
    else
        rel_journal undo-failed "$2" "$3" "$1" "$rel_status"
        rel_emit failed "$2" "$rel_status"
    fi
}

# --- the way back, before it is needed ----------------------------------------
# Each says `NUMBER WORDS` of what speaks against a step, and nothing else; asked with the facts.

# Where no journal can be kept nothing will be done, and that is told when it is begun.
rel_back_ground() {
    rel_d=$rel_state
    until [ -e "$rel_d" ]; do
        rel_d=${rel_d%/*}
        rel_d=${rel_d:-/}
    done
    [ -w "$rel_d" ]
}

# NUMBER PATH: what a step writes. Where its directory is made only then, nothing is known.
rel_back_path() {
    case $2 in
    */*) rel_p=${2%/*} ;;
    *) rel_p=. ;;
    esac
    rel_p=${rel_p:-/}
    if [ ! -d "$rel_p" ]; then return 0; fi
    if [ ! -w "$rel_p" ] || [ ! -x "$rel_p" ]; then
        printf '%s %s can not be written: nothing could be brought back there\n' "$1" "$rel_p"
    elif [ -f "$2" ] && [ ! -r "$2" ]; then
        printf '%s %s can not be read, and so not be kept\n' "$1" "$2"
    fi
}

# NUMBER NAME: a service that rel started is started again on the way back.
rel_back_service() {
    rel_why=$(rel_can_start "$2") || printf '%s %s\n' "$1" "$rel_why"
}

# NAME: fails with the reason where a service that was started could not be started again, as
# far as that can be said without a try: how it was started, where, and by which program.
rel_can_start() {
    rel_sd=$rel_state/services/$1
    if [ ! -s "$rel_sd/pid" ]; then return 0; fi
    if [ ! -s "$rel_sd/run" ]; then
        printf 'how %s was started is not known any more: %s is gone\n' "$1" "$rel_sd/run"
        return 1
    fi
    rel_first= rel_before= rel_last=
    while IFS= read -r rel_l; do
        rel_first=${rel_first:-$rel_l} rel_before=$rel_last rel_last=$rel_l
    done <"$rel_sd/run"
    rel_p=${rel_first#'cd -- '}
    case $rel_p in
    *\\* | "$rel_first") return 0 ;;
    "'"*"'")
        rel_p=${rel_p#"'"}
        rel_p=${rel_p%"'"}
        ;;
    *"'"*) return 0 ;;
    esac
    if [ ! -d "$rel_p" ]; then
        printf '%s, where %s runs, is gone\n' "$rel_p" "$1"
        return 1
    fi
    # A command of one line. Older runs opened the log in the line before it.
    case $rel_before in
    '# run' | 'exec >>'*) ;;
    *) return 0 ;;
    esac
    rel_w=${rel_last#exec }
    rel_w=${rel_w%%[ ;]*}
    case $rel_w in
    *[!A-Za-z0-9._/-]*) ;;
    /*) rel_p= ;;
    */*) rel_p=$rel_p/ ;;
    *) rel_w= ;;
    esac
    case $rel_w in
    '' | *[!A-Za-z0-9._/-]*) return 0 ;;
    esac
    if [ ! -x "$rel_p$rel_w" ]; then
        printf '%s, which %s runs, is gone\n' "$rel_p$rel_w" "$1"
        return 1
    fi
}

# NUMBER PATH ...: files that are kept while they are replaced need room beside the journal, in
# the directory that rel_back_ground has found.
rel_back_room() {
    rel_n=
    rel_files=0
    rel_i=$#
    while [ "$rel_i" -gt 0 ]; do
        if [ -f "$2" ] && [ -r "$2" ]; then
            rel_n=${rel_n:-$1}
            set -- "$@" "$2"
            rel_files=$((rel_files + 1))
        fi
        shift 2
        rel_i=$((rel_i - 2))
    done
    if [ "$rel_files" -eq 0 ]; then return 0; fi
    # The sum stands in the last line. What does not look so is not known.
    rel_need=$(wc -c -- "$@") || return 0
    set -- ${rel_need##*"$rel_newline"}
    case ${1:-x} in
    *[!0-9]*) return 0 ;;
    esac
    rel_need=$(($1 / 1024 + 64 + rel_files * 8))
    rel_free=$(df -Pk -- "$rel_d" 2>/dev/null) || return 0
    # The name of a file system may have blanks: the numbers end at the percentage.
    rel_free=${rel_free#*"$rel_newline"}
    set -- ${rel_free%%%*}
    while [ "$#" -gt 2 ]; do shift; done
    case ${1:-x} in
    *[!0-9]*) return 0 ;;
    esac
    if [ "$1" -lt "$rel_need" ]; then
        printf '%s %s KiB are free in %s, of %s that the former files need\n' "$rel_n" "$1" "$rel_d" "$rel_need"
    fi
}

# NUMBER USER GROUP: that a step runs as, or gives a file to.
rel_user_there() {
    case $2 in
    '' | *[!0-9]*)
        if [ -n "$2" ] && ! id -u -- "$2" >/dev/null 2>&1; then
            printf '%s there is no user %s\n' "$1" "$2"
        fi
        ;;
    esac
    case $3 in
    '' | *[!0-9]*)
        if [ -n "$3" ] && ! rel_group_there "$3"; then printf '%s there is no group %s\n' "$1" "$3"; fi
        ;;
    esac
}

rel_group_there() {
    if command -v getent >/dev/null 2>&1; then
        getent group "$1" >/dev/null
    else
        sed 's/:.*//' /etc/group 2>/dev/null | grep -qxF -- "$1"
    fi
}

# --- what goes on without rel ------------------------------------------------
# A step that is detached runs under a keeper (keeper.sh) in a session of its own. In
# $rel_state/detached/NAME:
#   held    locked (flock) by the keeper, alone, as long as it lives
#   meta    RUN SEQ SINCE BOOT ID KEY DOES: what it is and who asked for it last; there as
#           long as its end is not in the journal
#   pid     number and birth of the keeper, which leads the session
#   log     what it prints; log.former is that of the time before
#   status  exit status and time of the end, written by the keeper; later status.last
#   name    the step's name, for whoever reads the log later

# Sets rel_boot: when this host, or the container that it is, was started.
rel_boot() {
    rel_boot=-
    if rel_birth 1; then
        rel_boot=$rel_b
    else
        { read -r rel_boot </proc/sys/kernel/random/boot_id; } 2>/dev/null || :
    fi
}

# DIR: reads what is known of it; fails where nothing is.
rel_detached_read() {
    rel_d_id= rel_d_boot=
    { IFS=$rel_tab read -r rel_d_run rel_d_seq rel_d_since rel_d_boot rel_d_id rel_d_key \
        rel_d_does <"$1/meta"; } 2>/dev/null || :
    [ -n "$rel_d_id" ]
}

# DIR: whether its keeper lives.
rel_detached_runs() { ! { flock -n -s 8; } 8>>"$1/held"; } 2>/dev/null

# DIR: sets rel_d_state, rel_d_code and rel_d_end of what was read. Its lock is asked first:
# the keeper writes how it ended before it gives that up.
rel_detached_state() {
    rel_d_code=- rel_d_end=-
    if rel_detached_runs "$1"; then
        rel_d_state=running
    elif { read -r rel_d_code rel_d_end <"$1/status"; } 2>/dev/null; then
        rel_d_state=ended
    elif rel_boot && [ "$rel_d_boot" != "$rel_boot" ]; then
        rel_d_state=restarted
    else
        rel_d_state=killed
    fi
}
