# Whether root may write into directories, before anything is done. Comes after foreign.sh.

# WHO DIR...: whether root may write into all of them; reports the first where it may not. WHO would
# write there: `actions`, or `commands`, for which `into-foreign` does not count. Makes nothing.
rel_may_write() {
    local who="$1" lasts=' ' dir at hops rest count
    shift
    count=$#
    if [ "$rel_uid" != 0 ]; then return 0; fi
    if [ "$who" = actions ] && [ -n "${rel_foreign_ok:-}" ]; then return 0; fi
    while [ "$count" -gt 0 ]; do
        rest=$1 at='' hops='' dir=$1 count=$((count - 1))
        shift
        case $dir/ in
        # The directories above were checked when this session began.
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

# TAG DIR WHO [ALLOWED]: for a plan, prints the first foreign directory on the path DIR. The tag
# begins with `n` if that is no reason to refuse the plan. WHO is as for rel_may_write.
rel_name_foreign() {
    local tag="$1" allowed="${4:-${rel_foreign_ok:-}}"
    rel_find_foreign "$2"
    if [ -z "$rel_foreign" ]; then return 0; fi
    if [ "$rel_uid" != 0 ] || [ "$3:$allowed" = actions:1 ]; then tag=n${tag#f}; fi
    printf '%s %s can be changed by %s\n' "$tag" "$rel_foreign" "$rel_others"
}
