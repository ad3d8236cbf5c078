# Processes: their birth, their session, and the end of a session.

# PID: sets rel_process_stat to the fields of /proc/PID/stat after the name. A process chooses its
# name, which can contain line ends and brackets.
rel_read_stat() {
    local line=''
    rel_process_stat=
    {
        while IFS= read -r line; do rel_process_stat=$rel_process_stat$line; done <"/proc/$1/stat"
    } 2>/dev/null
    rel_process_stat=${rel_process_stat##*) }
    [ -n "$rel_process_stat" ]
}

# SESSION: prints the processes of a Unix session, without zombies. `sed` can find a part of a
# name, so each one is checked.
rel_members() {
    local pid fields
    for pid in $(
        sed -n "s/^\([0-9]*\) (.*) [^ZX] [0-9]* [0-9]* $1 .*/\1/p" /proc/[0-9]*/stat 2>/dev/null
    ); do
        # STATE PARENT GROUP SESSION ...
        if rel_read_stat "$pid"; then
            fields=${rel_process_stat#* * * }
            case $rel_process_stat:${fields%% *} in
            [!ZX]*":$1") printf '%s\n' "$pid" ;;
            esac
        fi
    done
}

# SESSION BIRTH RUN: whether it is still the Unix session whose leader was born then. After its last
# process the number can belong to another session, whose leader can have ended too. So without a
# leader, or without BIRTH, one of its processes must have been started for RUN.
rel_is_session() {
    local one
    if [ -n "$2" ] && rel_read_birth "$1"; then
        [ "$rel_birth" = "$2" ]
        return
    fi
    for one in $(rel_members "$1"); do
        one=$(tr '\0' '\n' 2>/dev/null <"/proc/$one/environ" | sed -n "/^REL_RUN_ID=$3\$/p")
        if [ -n "$one" ]; then return 0; fi
    done 2>/dev/null
    return 1
}

# LEADER [TENTHS]: ends all processes of a Unix session, with TERM; after TENTHS of a second with
# KILL. The caller checks rel_is_session before.
rel_end_group() {
    local most="${2:-10}" members count
    if [ -e /proc/self/stat ]; then
        members=$(rel_members "$1")
        if [ -z "$members" ]; then return 0; fi
        kill -TERM $members 2>/dev/null
        count=0
        while [ "$count" -lt "$most" ] && [ -n "$members" ]; do
            sleep 0.1
            count=$((count + 1))
            members=$(rel_members "$1")
        done
        # Again: a process that was being forked is not in the list.
        while [ -n "$members" ] && [ "$count" -lt "$((most + 10))" ]; do
            kill -KILL -"$1" $members 2>/dev/null
            count=$((count + 1))
            members=$(rel_members "$1")
        done
        return 0
    fi
    kill -TERM -"$1" 2>/dev/null || return 0
    count=0
    while [ "$count" -lt "$most" ] && kill -0 -"$1" 2>/dev/null; do
        sleep 0.1
        count=$((count + 1))
    done
    kill -KILL -"$1" 2>/dev/null
    return 0
}

# PID: sets rel_birth to the start of a process, in words that no later process of that number has.
# Fails, with `gone`, if it has ended or is a zombie.
rel_read_birth() {
    rel_birth=gone
    if [ -e /proc/self/stat ]; then
        rel_read_stat "$1" || return 1
        set -f
        set -- $rel_process_stat
        set +f
        if [ "$1" = Z ]; then return 1; fi
        shift 19
        rel_process_stat=
        { read -r rel_process_stat </proc/sys/kernel/random/boot_id; } 2>/dev/null || :
        rel_birth=$1-$rel_process_stat
    else
        set -f
        # shellcheck disable=SC2046
        set -- $(ps -o lstart= -p "$1")
        set +f
        if [ "$#" -eq 0 ]; then return 1; fi
        rel_birth=$1-$2-$3-$4-$5
    fi
}
