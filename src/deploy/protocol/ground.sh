# --- directories of other users, looked at before anything is done -----------
# The guard's part: whether rel may keep its state where it is to, and where root may not write.
# Comes after trust.sh.

# WHO DIR...: whether root may write in all of them; names the one where not, with WHO would:
# `actions`, or `commands`, which no `into-foreign` allows to. Nothing is made.
rel_may_write() {
    local who="$1" dir at hops rest lasts=' ' count
    shift
    count=$#
    if [ "$rel_uid" != 0 ]; then return 0; fi
    if [ "$who" = actions ] && [ -n "${rel_foreign_ok:-}" ]; then return 0; fi
    while [ "$count" -gt 0 ]; do
        rest=$1 at='' hops='' dir=$1 count=$((count - 1))
        shift
        case $dir/ in
        # What is above was looked at when this session began.
        "$rel_root"/*) at=$rel_root rest=${dir#"$rel_root"} ;;
        esac
        while rel_next_dir; do set -- "$@" "$at"; done
        if [ -d "$dir" ]; then lasts="$lasts$(($# - count + 1)) "; fi
    done
    if [ "$#" -eq 0 ]; then return 0; fi
    set -- / "$@"
    rel_stat "$@"
    rel_judge_way "$lasts" $rel_facts
    rel_judged "$@"
    if [ -z "$rel_foreign" ]; then return 0; fi
    rel_emit foreign "$who" "$rel_foreign can be changed by $rel_others"
    return 1
}

# TAG DIR WHO [ALLOWED]: for a plan, names the foreign directory on the way to DIR, or DIR. The
# tag of what is no reason to refuse the plan begins with another letter. WHO is as for
# rel_may_write.
rel_name_foreign() {
    local tag="$1" allowed="${4:-${rel_foreign_ok:-}}"
    rel_find_foreign "$2"
    if [ -z "$rel_foreign" ]; then return 0; fi
    if [ "$rel_uid" != 0 ] || [ "$3:$allowed" = actions:1 ]; then tag=n${tag#f}; fi
    printf '%s %s can be changed by %s\n' "$tag" "$rel_foreign" "$rel_others"
}

# Looks at the directories that rel keeps its state and its temporary files in. Fails with the
# reason in rel_why if one of them is a link, or belongs to another user, or can be changed by one:
# that user could choose what rel does here. Sets rel_uid, rel_gid and rel_epoch on the way, which
# saves the processes that would tell them.
rel_check_state() {
    local one own above at='' hops='' rest="$rel_state"
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
        # Whoever can change the checkout can change its Releasefile.
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

# Looks at the state directory as rel_check_state does. Where that is another project's, whose name
# is rel_other then, it is the one that this project has for such a host.
rel_find_state() {
    rel_other=
    rel_check_state || return 1
    if [ -z "$rel_state" ] || rel_is_ours; then return 0; fi
    rel_other=$rel_of_project rel_state=$rel_apart
    rel_check_state
}

# Whether no other project keeps its state where ours is; sets rel_of_project to the one that does.
# Before projects had their names written down, and where they have none, it is nobody's.
rel_is_ours() {
    { IFS= read -r rel_of_project <"$rel_state/project"; } 2>/dev/null || rel_of_project=
    [ -z "$rel_of_project" ] || [ "$rel_of_project" = "$rel_project" ]
}

# OWN COUNT ABOVE FACTS...: the first OWN of COUNT directories must be ours alone to change, and no
# other foreign; the next ABOVE count for root only. Fails with the reason in rel_why, and the number in rel_nth.
rel_check_facts() {
    local own="$1" count="$2" above="$3"
    shift 3
    rel_nth=1
    if [ "$#" -ne "$((count * 4))" ]; then
        rel_why='can not be used: it, or a directory of rel or above one, is gone or can not be looked at'
        return 1
    fi
    rel_meet "$2" "$3" "$4"
    while [ "$rel_nth" -le "$own" ]; do
        case $2:$1 in
        "$rel_uid":d????-??-?) ;;
        "$rel_uid":*) rel_why="can be changed by other users: its mode is $1" && return 1 ;;
        *) rel_why="belongs to $(rel_user_name "$2")" && return 1 ;;
        esac
        rel_nth=$((rel_nth + 1))
        shift 4
    done
    # `into-foreign` is about files that steps make: what lies in the state directory is run.
    if [ "$rel_uid" = 0 ]; then above=0; fi
    shift "$((above * 4))"
    rel_judge_way '' "$@"
    if [ -z "$rel_others" ]; then return 0; fi
    rel_nth=$((own + above + rel_nth))
    rel_why="can be changed by $rel_others, and what rel keeps lies below it"
    return 1
}

# UID GID MTIME of rel_tmp, which this session has made: who we are and, in memory, where the
# kernel's own clock dates a directory, when this is.
rel_meet() {
    case $rel_tmp:$3 in
    /dev/shm/*:*[!0-9]*) rel_whoami ;;
    /dev/shm/*)
        rel_tick
        rel_uid=$1 rel_gid=$2 rel_epoch=$3 rel_epoch_clock=$rel_clock
        ;;
    *) rel_whoami ;;
    esac
}
