# The state directory: whether rel may keep its state there, and how it is made and signed.

# Checks the directories of the state and of temporary files. Fails with the reason in rel_why if
# one of them is a link, belongs to another user, or can be changed by one: that user could run
# commands as this one. Sets rel_uid, rel_gid and rel_epoch too, which saves processes.
rel_check_state() {
    local at='' hops='' rest="$rel_state" one own above
    rel_why=
    set -- "$rel_tmp"
    for one in "$rel_root/.rel" "$rel_state" "$rel_state"/*; do
        if [ -z "$rel_state" ]; then break; fi
        if [ -L "$one" ]; then
            rel_why="$one is a symbolic link"
            return 1
        elif [ -d "$one" ]; then
            set -- "$@" "$one"
        elif [ -e "$one" ] && [ "${one#"$rel_state"/}" = "$one" ]; then
            rel_why="$one is not a directory"
            return 1
        fi
    done
    own=$#
    # All directories above.
    set -- "$@" /
    above=0
    if [ -n "${rel_checkout:-}" ]; then above=1; fi
    while rel_next_dir; do
        set -- "$@" "$at"
        # A user who can change the checkout can change its Releasefile.
        case ${rel_checkout:-}/ in
        "$at"/*) above=$((above + 1)) ;;
        esac
    done
    at='' hops='' rest=${rel_tmp%/*}
    while rel_next_dir; do set -- "$@" "$at"; done
    rel_stat "$@"
    rel_check_facts "$own" "$#" "$above" $rel_facts && return 0
    shift "$((rel_nth - 1))"
    rel_why="$1 $rel_why"
    return 1
}

# Checks the state directory, as rel_check_state does. If it belongs to another project, sets
# rel_other to the name of that, and rel_state to the directory that this project has then.
rel_find_state() {
    rel_other=
    rel_check_state || return 1
    if [ -z "$rel_state" ] || rel_is_own_state; then return 0; fi
    rel_other=$rel_of_project rel_state=$rel_apart
    rel_check_state
}

# Whether the state directory belongs to no other project; sets rel_of_project to its project. A
# directory without a project's name belongs to none.
rel_is_own_state() {
    { IFS= read -r rel_of_project <"$rel_state/project"; } 2>/dev/null || rel_of_project=
    [ -z "$rel_of_project" ] || [ "$rel_of_project" = "$rel_project" ]
}

# OWN COUNT ABOVE FACTS...: checks that only this user can change the first OWN of COUNT
# directories, and that none of the others is foreign; the next ABOVE count for root only. Fails
# with the reason in rel_why and the number in rel_nth.
rel_check_facts() {
    local own="$1" count="$2" above="$3"
    shift 3
    rel_nth=1
    if [ "$#" -ne "$((count * 4))" ]; then
        rel_why='cannot be used: it, or a directory of rel or above one, is gone or cannot be looked at'
        return 1
    fi
    rel_set_identity "$2" "$3" "$4"
    while [ "$rel_nth" -le "$own" ]; do
        case $2:$1 in
        "$rel_uid":d????-??-?) ;;
        "$rel_uid":*) rel_why="can be changed by other users: its mode is $1" && return 1 ;;
        *) rel_why="belongs to $(rel_user_name "$2")" && return 1 ;;
        esac
        rel_nth=$((rel_nth + 1))
        shift 4
    done
    # `into-foreign` does not count here: scripts in the state directory are run.
    if [ "$rel_uid" = 0 ]; then above=0; fi
    shift "$((above * 4))"
    rel_judge_way '' "$@"
    if [ -z "$rel_others" ]; then return 0; fi
    rel_nth=$((own + above + rel_nth))
    rel_why="can be changed by $rel_others, and the state directory of rel is below it"
    return 1
}

# UID GID MTIME of rel_tmp, which this session has just made: sets rel_uid, rel_gid and, if it is in
# memory, where directories have the time of the kernel's clock, rel_epoch.
rel_set_identity() {
    case $rel_tmp:$3 in
    /dev/shm/*:*[!0-9]*) rel_whoami ;;
    /dev/shm/*)
        rel_monotonic_cs
        rel_uid=$1 rel_gid=$2 rel_epoch=$3 rel_epoch_clock=$rel_clock
        ;;
    *) rel_whoami ;;
    esac
}

# NAME...: makes the state directory, with these directories in it.
rel_make_state() {
    local missing=0 name
    for name in "$@"; do set -- "$@" "$rel_state/$name" && shift; done
    for name in "$rel_root/.rel" "$rel_state" "$@"; do
        if [ ! -d "$name" ]; then missing=$((missing + 1)) && set -- "$@" "$name"; fi
    done
    shift "$(($# - missing))"
    # It fails if another run is first.
    if [ "$missing" -gt 0 ]; then mkdir -m 700 -- "$@" 2>/dev/null; fi
    [ -d "$rel_state/undo" ] && [ -d "$rel_state/services" ]
}

# Writes the name of the project, the name of the host, and its machine to the state directory.
# Fails if it belongs to another project.
rel_sign_state() {
    if ! rel_is_own_state; then return 1; fi
    if [ -n "$rel_project" ] && [ -z "$rel_of_project" ]; then
        { printf '%s\n' "$rel_project" >"$rel_state/project.new" &&
            mv -f -- "$rel_state/project.new" "$rel_state/project"; } 2>/dev/null
    fi
    if [ -z "$rel_host_name" ] || [ "$rel_written" = "$rel_host_name $rel_machine" ]; then return 0; fi
    rel_written="$rel_host_name $rel_machine"
    { printf '%s\n' "$rel_written" >"$rel_state/host.new" &&
        mv -f -- "$rel_state/host.new" "$rel_state/host"; } 2>/dev/null
    return 0
}
