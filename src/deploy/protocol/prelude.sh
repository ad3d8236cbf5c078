# The words that both programs and guards are written in.
#
# POSIX sh; runs in dash, bash and busybox. What is set before it by rel stands in program.rs
# (`Header::text`). What only programs need stands in steps.sh: a host reads the prelude before it
# answers anything.

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

# Whether this run is still the holder. A run that asks only holds nothing.
rel_holds() {
    rel_read_lease "$rel_state/lease" && [ "$rel_h_token" = "${rel_token:-}" ] && ! rel_is_revoked
}

# Holds the fence, with others who act as the holder. One that was killed is asked again.
rel_stand() {
    while :; do
        flock -s 9 && return
        if [ "$?" -lt 128 ]; then return 1; fi
    done
}

# One line of the journal: EVENT SEQ ID KEY DETAIL, `-` where there is none. Sets rel_unwritten
# where it can not be written.
rel_journal() {
    rel_now
    printf '1\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$rel_time" "$rel_run" \
        "$2" "$3" "$4" "$rel_who" "$5" >>"$rel_state/journal" || { rel_unwritten=1; return 1; }
}

# --- lists and digests -------------------------------------------------------

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

# --- other users -------------------------------------------------------------

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

# --- scopes ------------------------------------------------------------------

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
