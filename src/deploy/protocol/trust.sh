# --- directories of other users ----------------------------------------------
# A directory is foreign if another user can change it, or a directory on the way to it. That
# user can replace any name in it at any moment, also between two commands of ours. So what
# rel makes outside of its state directory is made like this:
#   1. the directory of the path becomes the working directory (rel_enter_dir), and where that
#      is, is looked at;
#   2. new content is made beside it under a name that nobody can guess; in a foreign directory
#      below it in a private one, which nobody else can enter (rel_with_parts);
#   3. one rename(2), which follows no symbolic link, moves it into place (rel_rename).
# After 1. all names are relative to the working directory. root writes into a foreign directory
# only if rel_foreign_ok is set (`into-foreign=#true`), and through no symbolic link there.

# Sets rel_uid and rel_gid: user and group of this session. Who cannot tell takes itself for root,
# which may do less here.
rel_whoami() {
    if [ -z "${rel_uid:-}" ]; then rel_uid=$(id -u) && rel_gid=$(id -g); fi
    rel_uid=${rel_uid:-0} rel_gid=${rel_gid:-0}
}

# PATH...: sets rel_facts to `MODE UID GID MTIME` of each, a line each. MODE is as `ls -l` prints
# it; links are not followed.
rel_stat() { rel_facts=$(stat -c '%A %u %g %Y' -- "$@" 2>/dev/null) || rel_facts=$(rel_list "$@"); }

# PATH...: prints the same, but for MTIME. For hosts without a `stat` that knows -c (BSD).
rel_list() {
    local one
    for one in "$@"; do
        # The first line only: a name can hold line ends.
        ls -ldn -- "$one" |
            sed -n '1s/^\(..........\)[^ ]* *[0-9]* *\([0-9]*\) *\([0-9]*\) .*/\1 \2 \3 -/p'
    done
}

# PATH: prints mode and owner of a file, as plan/access.rs reads them, with the user of this session;
# nothing where no file is, or a link, which is replaced itself.
rel_access() {
    local facts
    if [ ! -f "$1" ] || [ -L "$1" ]; then return 0; fi
    rel_whoami
    facts=$(stat -c '%A %u %g %U %G' -- "$1" 2>/dev/null) || facts="$(rel_list "$1") -"
    printf 'access %s %s\n' "$facts" "$rel_uid"
}

# Moves `at` one name further along `rest`, and from a symbolic link to where it leads; fails at
# the end of it and where nothing is. So `at` has no link in it but its last name. Begins with
# `at` and `hops` empty.
rel_next_dir() {
    local one=
    if [ -L "$at" ]; then
        # As many as the kernel follows.
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

# ROOT LAST MODE UID GID: sets rel_others to the others that can change a directory with these facts,
# if there are any. ROOT owns `/` and is taken for root: in a container that can be another
# number. In a directory with the sticky bit others can only add names; that counts where LAST is
# not empty.
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
        # Most systems give each user a group of the same number, with nobody else in it. These
        # bits are also what an access list gives to others at most, so for root they count.
        if [ "$rel_uid" = 0 ] || [ "$5" != "$rel_gid" ] || [ "$5" != "$rel_uid" ]; then
            rel_others="the group $5 or an access list"
        fi
        ;;
    esac
}

# LASTS FACTS...: judges directories, `/` first, given as the words that rel_stat printed. Sets
# rel_others as rel_judge does, and rel_nth to how many there are up to the foreign one. LASTS are
# the numbers, with blanks around each, of those that are written into.
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

# DIR...: after rel_judge_way, sets rel_foreign to the directory where it stopped; to the first one
# where there were fewer facts than directories.
rel_judged() {
    if [ -z "$rel_others" ] && [ "$rel_nth" -lt "$#" ]; then
        rel_others='users that are not known' rel_nth=1
    fi
    rel_foreign=
    if [ -z "$rel_others" ]; then return 0; fi
    shift "$((rel_nth - 1))"
    rel_foreign=$1
}

# DIR: sets rel_foreign to the first foreign directory on the way to this absolute path, DIR
# included as far as it exists, and rel_others to who can change it; both are empty if there is
# none. Where a symbolic link leads is on the way as well.
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

# PATH: makes its directory the working directory, and the directory itself where it is missing.
# Sets rel_name to the name in it, and rel_held to the directory if it is foreign.
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
    rel_held='' rel_name=${dir##*/} dir=${dir%/*}
    dir=${dir:-/}
    case $rel_name in
    '' | . | ..)
        printf '%s does not name a file\n' "$1"
        return 1
        ;;
    esac
    # What lies in the state directory was looked at when this session began.
    case $dir in
    "$rel_state"/*) cd -P -- "$dir" 2>/dev/null && return 0 ;;
    esac
    rel_find_foreign "$dir"
    if [ ! -d "$dir" ] && { [ -z "$rel_foreign" ] || [ "$rel_uid" != 0 ]; }; then
        # In a directory with the sticky bit another user can be first, and a default access list
        # opens what is made.
        ( umask "$rel_umask" && mkdir -p -- "$dir" ) && rel_find_foreign "$dir" || return 1
    fi
    if [ -z "$rel_foreign" ] || [ "$rel_uid" != 0 ]; then
        cd -P -- "$dir" || return 1
        if [ -n "$rel_foreign" ]; then rel_held=$PWD; fi
        return 0
    fi
    if [ -z "${rel_foreign_ok:-}" ]; then
        rel_explain_foreign "$1"
        return 1
    fi
    rel_enter_foreign "$dir"
}

# DIR: makes it the working directory; where another user can change it, through no link if we are
# root.
rel_cd() {
    rel_find_foreign "$1"
    if [ "$rel_uid" = 0 ] && [ -n "$rel_foreign" ] && [ -d "$1" ]; then
        rel_enter_foreign "$1"
    else
        cd -- "$1" || return 1
    fi
}

# PATH: says why root does not write there.
rel_explain_foreign() {
    printf '%s can be changed by %s, and root would write to %s\n' "$rel_foreign" "$rel_others" "$1"
}

# DIR: enters it, from the first foreign directory on name by name and through no link. What
# `cd` has entered stays the working directory, whatever becomes of its name.
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
    rel_held=$at
}

# DIR: whether the working directory is DIR. `pwd -P` asks the kernel; PWD is what the shell
# can have computed before it changed the directory.
rel_is_at() {
    local at
    at=$(pwd -P && printf x) && [ "$at" = "$1${rel_newline}x" ]
}

# COMMAND...: runs it with rel_there as a name for the path that was entered, and rel_part as the
# beginning of names that nobody else can touch. Where these are is kept in the state directory
# until they are gone, for rel_sweep.
rel_with_parts() {
    local status=0
    if [ -s "$rel_state/private" ]; then rel_sweep; fi
    umask 077
    if [ -n "$rel_held" ]; then
        rel_in_private "$@" || status=$?
    else
        rel_part=.rel-${rel_salt:-$$}. rel_there=./$rel_name rel_new=${rel_part}new
        printf '%s\n' "${PWD%/}/$rel_part" >"$rel_state/private" || return 1
        "$@" || status=$?
        rel_remove_parts
    fi
    : >"$rel_state/private"
    return "$status"
}

# COMMAND...: the same in a foreign directory: in a private directory below it. `..` stays what
# it is: only its owner can move a directory into another one.
rel_in_private() {
    local status=0 private
    rel_part='' rel_there=../$rel_name rel_new=new
    private=$(mktemp -d ./.rel-XXXXXXXXXX) || return 1
    private=${private##*/}
    printf '%s\n' "$rel_held/$private" >"$rel_state/private" || return 1
    cd -P -- "./$private" || return 1
    if ! rel_is_own_private "$rel_held/$private"; then
        printf '%s was replaced by another user\n' "$rel_held/$private"
        return 1
    fi
    "$@" || status=$?
    rel_remove_parts
    cd .. && rmdir -- "./$private" || return 1
    return "$status"
}

# Removes what the new content was made of.
rel_remove_parts() {
    for rel_f in "./$rel_part"new* "./${rel_part}pinned" "./${rel_part}saved" \
        "./${rel_part}former" "./${rel_part}former-name"; do
        if [ -e "$rel_f" ] || [ -L "$rel_f" ]; then rm -rf -- "$rel_f"; fi
    done
}

# PATH: whether the working directory is the private one that was made there: another user can have
# put something else in its place before it was entered.
rel_is_own_private() {
    rel_is_at "$1" && rel_is_ours || return 1
    for rel_f in * .[!.]* ..?*; do
        if [ -e "$rel_f" ] || [ -L "$rel_f" ]; then return 1; fi
    done
}

# PATH: whether what stands there may be read as a file. Another user can put a FIFO there, which
# waits for ever, or a link to a file that only root may read.
rel_is_readable() {
    if [ -e "$1" ] && [ ! -f "$1" ]; then return 1; fi
    if [ ! -L "$1" ]; then return 0; fi
    case $1 in
    /*) rel_find_foreign "${1%/*}" ;;
    *) rel_find_foreign "$PWD/${1%/*}" ;;
    esac
    [ -z "$rel_foreign" ]
}

# Whether nobody but this user can enter the working directory.
rel_is_ours() {
    rel_stat .
    case $rel_facts in
    "drwx------ $rel_uid "*) ;;
    *) return 1 ;;
    esac
}

# PATH COMMAND...: enters the directory of PATH, and runs the command as rel_with_parts does.
rel_beside() {
    rel_enter_dir "$1" || return 1
    shift
    rel_with_parts "$@"
}

# Removes the parts that a killed run left. What that run had moved out of the way (`former`)
# goes back if nothing has taken its place.
rel_sweep() {
    local path=
    { IFS= read -r path <"$rel_state/private"; } 2>/dev/null || return 0
    (
        rel_foreign_ok=1
        case ${path##*/} in
        .rel-*) ;;
        *) exit 0 ;;
        esac
        if [ ! -d "${path%/*}" ] || ! rel_enter_dir "$path"; then exit 0; fi
        case $rel_name in
        *.)
            if [ -n "$rel_held" ]; then exit 0; fi
            rel_part=$rel_name up=.
            ;;
        *)
            cd -P -- "./$rel_name" && rel_is_ours || exit 0
            if [ -n "$rel_held" ] && ! rel_is_at "$rel_held/$rel_name"; then exit 0; fi
            rel_part='' up=.. private=$rel_name
            ;;
        esac
        if IFS= read -r name <"./${rel_part}former-name"; then
            if [ ! -e "$up/$name" ] && [ ! -L "$up/$name" ]; then rel_rename "./${rel_part}former" "$up/$name"; fi
        fi
        rel_remove_parts
        if [ "$up" = .. ]; then cd .. && rmdir -- "./$private"; fi
    ) >/dev/null 2>&1
    : >"$rel_state/private"
}

# FROM TO: rename(2). -T (-h where mv is of BSD): a link to a directory is replaced, not entered.
rel_rename() {
    if mv -fT -- "$1" "$2" 2>/dev/null || mv -fh -- "$1" "$2" 2>/dev/null; then return 0; fi
    # For its words.
    mv -fT -- "$1" "$2"
}

# FROM TO: link(2), which replaces nothing. Where TO is a link to a directory, that is not entered.
rel_link() { ln -T -- "$1" "$2" 2>/dev/null || ln -h -- "$1" "$2" 2>/dev/null; }

# Whether releases here may share files: root's ones not where another user can swap them.
rel_may_share() { [ -z "$rel_held" ] || [ "$rel_uid" != 0 ]; }

# BASE DIR: says where the last directory of a kind lies.
rel_set_base() {
    { [ -d "$rel_state/bases" ] || mkdir -p -- "$rel_state/bases"; } &&
        ln -sfn -- "$2" "$rel_state/bases/$1"
}

# UID: prints the name of a user, or the number.
rel_user_name() { id -un -- "$1" 2>/dev/null || printf '%s\n' "$1"; }
