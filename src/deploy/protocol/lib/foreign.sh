# Directories that other users can change.
#
# A directory is foreign if another user can change it, or change a directory above it. That user
# can replace any name in it at any moment, also between two commands of rel. So rel makes files
# outside of its state directory in three steps:
#   1. The directory of the path becomes the working directory, and its place is checked
#      (rel_enter_dir).
#   2. New content is made beside the target under a name that cannot be guessed; in a foreign
#      directory it is made in a private directory below (rel_with_parts).
#   3. One rename(2), which follows no symbolic link, moves it to the target (rel_rename).
# After step 1 all names are relative to the working directory. root writes into a foreign directory
# only if rel_foreign_ok is set (`into-foreign=#true`), and never through a symbolic link there.
# private_parts.sh has steps 2 and 3.

# Sets rel_uid and rel_gid: user and group of this session. If they are unknown, those of root,
# which has the stricter rules.
rel_whoami() {
    if [ -z "${rel_uid:-}" ]; then rel_uid=$(id -u) && rel_gid=$(id -g); fi
    rel_uid=${rel_uid:-0} rel_gid=${rel_gid:-0}
}

# PATH...: sets rel_facts to a line `MODE UID GID MTIME` for each. MODE is as `ls -l` prints it.
# Does not follow links.
rel_stat() { rel_facts=$(stat -c '%A %u %g %Y' -- "$@" 2>/dev/null) || rel_facts=$(rel_list "$@"); }

# PATH...: prints the same, with `-` for MTIME. For hosts without `stat -c` (BSD).
rel_list() {
    local one
    for one in "$@"; do
        # The first line only: a name can contain line ends.
        ls -ldn -- "$one" |
            sed -n '1s/^\(..........\)[^ ]* *[0-9]* *\([0-9]*\) *\([0-9]*\) .*/\1 \2 \3 -/p'
    done
}

# PATH: prints mode and owner of a file, and the user of this session, as plan/access.rs reads them.
# Prints nothing if it is no file, or a link.
rel_access() {
    local facts
    if [ ! -f "$1" ] || [ -L "$1" ]; then return 0; fi
    rel_whoami
    facts=$(stat -c '%A %u %g %U %G' -- "$1" 2>/dev/null) || facts="$(rel_list "$1") -"
    printf 'access %s %s\n' "$facts" "$rel_uid"
}

# Moves `at` one name further along `rest`, and from a symbolic link to its target. Fails at the
# end, and where nothing exists. So only the last name of `at` can be a link. All three are
# variables of the caller; `at` and `hops` are empty at first.
rel_next_dir() {
    local one=
    if [ -L "$at" ]; then
        # As many links as the kernel follows.
        hops=${hops}x
        if [ "${#hops}" -gt 40 ]; then return 1; fi
        one=$(readlink -- "$at" && printf x) || return 1
        rest=${one%?x}/$rest at=${at%/*}
        case $rest in
        /*) at= ;;
        esac
    fi
    while :; do
        if [ -z "$rest" ]; then return 1; fi
        one=${rest%%/*}
        case $rest in
        */*) rest=${rest#*/} ;;
        *) rest= ;;
        esac
        case $one in
        '' | .) ;;
        ..) at=${at%/*} ;;
        *) break ;;
        esac
    done
    at=$at/$one
    [ -d "$at" ] || [ -L "$at" ]
}

# ROOT LAST MODE UID GID: sets rel_others to the other users that can change a directory with these
# facts, or to nothing. ROOT is the owner of `/` and counts as root: in a container that can be
# another number. In a directory with the sticky bit others can only add names; that counts if LAST
# is not empty.
rel_judge() {
    rel_others=
    case $4 in
    0 | "$1" | "$rel_uid" | "${rel_project_uid:-0}") ;;
    *) rel_others="the user $(rel_user_name "$4")" && return ;;
    esac
    case $3 in
    l*) return ;;
    *[tT]) if [ -z "$2" ]; then return; fi ;;
    esac
    case $3 in
    ????????w?) rel_others='every user' ;;
    ?????w????)
        # Most systems give each user a private group of the same number. The group bits also limit
        # an access list, so for root they count always.
        if [ "$rel_uid" = 0 ] || [ "$5" != "$rel_gid" ] || [ "$5" != "$rel_uid" ]; then
            rel_others="the group $5 or an access list"
        fi
        ;;
    esac
}

# LASTS FACTS...: checks directories, `/` first, given as the words that rel_stat printed. Sets
# rel_others as rel_judge does, and rel_nth to the number of the first foreign one. LASTS are the
# numbers, with blanks around each, of the directories that are written into.
rel_judge_way() {
    local lasts="$1" root="${3:-}"
    shift
    rel_nth=0 rel_others=
    while [ "$#" -ge 4 ]; do
        rel_nth=$((rel_nth + 1))
        case $lasts in
        *" $rel_nth "*) rel_judge "$root" last "$1" "$2" "$3" ;;
        *) rel_judge "$root" '' "$1" "$2" "$3" ;;
        esac
        if [ -n "$rel_others" ]; then return 0; fi
        shift 4
    done
}

# DIR...: after rel_judge_way, sets rel_foreign to the first foreign directory; to the first of all
# if there were fewer facts than directories.
rel_judged() {
    if [ -z "$rel_others" ] && [ "$rel_nth" -lt "$#" ]; then
        rel_others='users that are not known' rel_nth=1
    fi
    rel_foreign=
    if [ -z "$rel_others" ]; then return 0; fi
    shift "$((rel_nth - 1))"
    rel_foreign=$1
}

# DIR: sets rel_foreign to the first foreign directory on the absolute path DIR, and rel_others to
# the users that can change it; both to nothing if there is none. Targets of symbolic links are
# checked as well.
rel_find_foreign() {
    local at='' hops='' rest="$1" lasts=''
    rel_whoami
    if [ -d "$1" ]; then lasts=1; fi
    set -- /
    while rel_next_dir; do set -- "$@" "$at"; done
    if [ -n "$lasts" ]; then lasts=" $# "; fi
    rel_stat "$@"
    rel_judge_way "$lasts" $rel_facts
    rel_judged "$@"
}

# PATH: makes its directory the working directory; makes the directory if it does not exist. Sets
# rel_name to the last name of PATH, and rel_entered_foreign to the directory if it is foreign.
rel_enter_dir() {
    local dir="$1"
    case $dir in
    /*) ;;
    *) dir=${PWD%/}/$dir ;;
    esac
    while :; do
        case $dir in
        *//*) dir=${dir%%//*}/${dir#*//} ;;
        */./*) dir=${dir%%/./*}/${dir#*/./} ;;
        *) break ;;
        esac
    done
    rel_entered_foreign='' rel_name=${dir##*/} dir=${dir%/*}
    dir=${dir:-/}
    case $rel_name in
    '' | . | ..)
        printf '%s does not name a file\n' "$1"
        return 1
        ;;
    esac
    # The state directory was checked when this session began.
    case $dir in
    "$rel_state"/*) cd -P -- "$dir" 2>/dev/null && return 0 ;;
    esac
    rel_find_foreign "$dir"
    if [ ! -d "$dir" ] && { [ -z "$rel_foreign" ] || [ "$rel_uid" != 0 ]; }; then
        # Checked again: in a directory with the sticky bit another user can be first, and a default
        # access list can give access to others.
        ( umask "$rel_umask" && mkdir -p -- "$dir" ) && rel_find_foreign "$dir" || return 1
    fi
    if [ -z "$rel_foreign" ] || [ "$rel_uid" != 0 ]; then
        cd -P -- "$dir" || return 1
        if [ -n "$rel_foreign" ]; then rel_entered_foreign=$PWD; fi
        return 0
    fi
    if [ -z "${rel_foreign_ok:-}" ]; then
        rel_explain_foreign "$1"
        return 1
    fi
    rel_enter_foreign "$dir"
}

# DIR: makes it the working directory. root follows no link in a foreign directory.
rel_cd() {
    rel_find_foreign "$1"
    if [ "$rel_uid" = 0 ] && [ -n "$rel_foreign" ] && [ -d "$1" ]; then
        rel_enter_foreign "$1"
    else
        cd -- "$1" || return 1
    fi
}

# PATH: prints why root does not write there.
rel_explain_foreign() {
    printf '%s can be changed by %s, and root would write to %s\n' "$rel_foreign" "$rel_others" "$1"
}

# DIR: makes it the working directory; below the first foreign directory name by name, without
# following links. A directory stays the working directory, even if it is renamed.
rel_enter_foreign() {
    local at='' hops='' rest="$1" one
    if [ "$rel_foreign" != / ]; then
        while rel_next_dir && [ "$at" != "$rel_foreign" ]; do :; done
        rest=${at##*/}/$rest at=${at%/*}
    fi
    cd -P -- "${at:-/}" || return 1
    at=${PWD%/}
    while [ -n "$rest" ]; do
        one=${rest%%/*}
        case $rest in
        */*) rest=${rest#*/} ;;
        *) rest= ;;
        esac
        if [ -z "$one" ]; then continue; fi
        if [ ! -e "./$one" ] && [ ! -L "./$one" ]; then mkdir -- "./$one" || return 1; fi
        at=$at/$one
        if ! cd -P -- "./$one" || ! rel_is_at "$at"; then
            printf '%s is a symbolic link that another user can change\n' "$at"
            return 1
        fi
    done
    rel_entered_foreign=$at
}

# DIR: whether the working directory is DIR. `pwd -P` asks the kernel; the shell can have computed
# PWD before it changed the directory.
rel_is_at() {
    local at
    at=$(pwd -P && printf x) && [ "$at" = "$1${rel_newline}x" ]
}

# PATH: whether it may be read as a file. Another user can put a FIFO there, which blocks, or a
# link to a file that only root may read.
rel_is_readable() {
    if [ -e "$1" ] && [ ! -f "$1" ]; then return 1; fi
    if [ ! -L "$1" ]; then return 0; fi
    case $1 in
    /*) rel_find_foreign "${1%/*}" ;;
    *) rel_find_foreign "$PWD/${1%/*}" ;;
    esac
    [ -z "$rel_foreign" ]
}

# UID: prints the name of a user, or the number if it has none.
rel_user_name() { id -un -- "$1" 2>/dev/null || printf '%s\n' "$1"; }
