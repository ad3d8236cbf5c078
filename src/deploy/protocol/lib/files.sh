# Files. Actions of steps make all their files here, in the way that foreign.sh describes. Bodies
# are subshells, so the caller keeps its working directory. They do not rely on `set -e`, which has
# no effect inside `if` and `||`.

# PATH: sets rel_found to a name of the file or link at PATH that no other user can change between a
# check and its use; to nothing if nothing is there. Fails for anything else: to read a FIFO can
# wait forever.
rel_pin() {
    rel_found=$rel_there
    if [ ! -e "$rel_found" ] && [ ! -L "$rel_found" ]; then
        rel_found=
        return 0
    fi
    if [ -d "$rel_found" ] && [ ! -L "$rel_found" ]; then
        printf '%s is a directory\n' "$1"
        return 1
    fi
    if [ -n "$rel_entered_foreign" ]; then
        # The kernel can forbid users other than root a hard link to a file of another user.
        if ln -- "$rel_found" pinned 2>/dev/null; then
            rel_found=pinned
        elif [ "$rel_uid" = 0 ]; then
            printf '%s cannot be given a second name\n' "$1"
            return 1
        fi
    fi
    if [ -f "$rel_found" ] || [ -L "$rel_found" ]; then return 0; fi
    printf '%s is not a file\n' "$1"
    return 1
}

# Adds rel_call_line to the undo script of the step at work, unless it has `undo=#false`.
rel_undo_call() {
    if [ -n "${rel_keeps_nothing:-}" ]; then return 0; fi
    if [ -n "${rel_foreign_ok:-}" ]; then rel_undo rel_foreign_ok=1; fi
    rel_undo "$rel_call_line"
}

# PATH: removes one file or link.
rel_remove() (
    if [ ! -e "$1" ] && [ ! -L "$1" ]; then exit 0; fi
    rel_enter_dir "$1" && rm -f -- "./$rel_name"
)

# DIR NAME: removes everything in a directory except NAME. Does not follow links.
rel_clear() (
    local one
    rel_enter_dir "$1/$2" || exit 1
    for one in * .[!.]* ..?*; do
        if [ "$one" != "$2" ] && { [ -e "./$one" ] || [ -L "./$one" ]; }; then
            rm -rf -- "./$one" || exit 1
        fi
    done
)

# PATH [MODE]: writes standard input to a file, without an undo script.
rel_replace() ( rel_beside "$1" rel_replace_there "$@" )

rel_replace_there() {
    rel_pin "$1" && rel_make_new && cat >"$rel_new" && chmod "${2:-0644}" "$rel_new" && rel_rename "$rel_new" "$rel_there"
}

# PATH FILE: appends the content of FILE to a file, also in a directory that belongs to another
# user, as those of databases do. Owner and mode stay. A link is refused: the other user would get
# a copy of the file that it leads to.
rel_append() (
    rel_foreign_ok=1
    case $2 in
    /*) ;;
    *) set -- "$1" "${PWD%/}/$2" ;;
    esac
    rel_beside "$1" rel_append_there "$@"
)

rel_append_there() {
    rel_pin "$1" || return 1
    if [ -L "$rel_found" ]; then
        printf '%s is a symbolic link\n' "$1"
        return 1
    elif [ -n "$rel_found" ]; then
        cp -pP -- "$rel_found" "$rel_new" || return 1
    else
        rel_make_new && chmod 0644 "$rel_new" || return 1
    fi
    cat -- "$2" >>"$rel_new" && rel_rename "$rel_new" "$rel_there"
}

# PATH: makes an empty file, also in a directory that belongs to another user.
rel_mark() ( rel_foreign_ok=1; rel_beside "$1" rel_replace_there "$1" </dev/null )

# DIR HOST: makes the use at work the owner of a directory. Fails if another use owns it: both would
# make files of the same names.
rel_own() (
    rel_foreign_ok=1
    rel_beside "$1/.rel-owner" rel_own_there "$1" "$rel_use of ${rel_state##*/} on $2"
)

rel_own_there() {
    local owner='' project=''
    { IFS= read -r project <"$rel_state/project"; } 2>/dev/null || :
    project=${project:+, project $project}
    rel_pin "$1/.rel-owner" || return 1
    if [ -z "$rel_found" ]; then
        rel_make_new && printf '%s\n' "$2$project" >"$rel_new" && chmod 0644 "$rel_new" || return 1
        # If two do this at once, the first one owns it.
        if rel_link "$rel_new" "$rel_there"; then return 0; fi
        rel_pin "$1/.rel-owner" || return 1
        if [ -z "$rel_found" ]; then
            # A file system without hard links.
            rel_rename "$rel_new" "$rel_there"
            return
        fi
    fi
    if [ -L "$rel_found" ]; then owner='a link'; else IFS= read -r owner <"$rel_found" || :; fi
    # A project may get its name later.
    if [ "$owner" = "$2" ] || [ "$owner" = "$2$project" ]; then return 0; fi
    printf '%s is taken by %s: give %s a directory of its own, or remove %s where that is no more\n' \
        "$1" "${owner:-nobody}" "$rel_use" "$1/.rel-owner"
    return 1
}

# PATH MODE CONTENT [OWNER]: writes a file. A copy of the former one stays in the undo directory.
rel_write() ( rel_beside "$1" rel_write_there "$@" )

rel_write_there() {
    local old="$rel_state/undo/$rel_run/$rel_seq.old" sum access
    rel_pin "$1" || return 1
    sum=$(printf '%s' "$3" | sha256sum) || return 1
    sum=${sum%% *}
    if [ -n "$rel_found" ] && [ -z "${rel_keeps_nothing:-}" ]; then
        rm -f -- "$old" && cp -pP -- "$rel_found" "$old" || return 1
        rel_access_of "$rel_found" access
        rel_call rel_write_back "$1" "$old" "$sum" "$access"
    else
        rel_call rel_unwrite "$1" "$sum"
    fi
    rel_undo_call && rel_make_new && printf '%s' "$3" >"$rel_new" && rel_finish_file "$2" "${4:-}"
}

# Makes the new file, which must not exist yet, with access for its owner only. mktemp sets the
# mode; the umask has no effect in a directory with a default access list.
rel_make_new() {
    if [ -z "$rel_entered_foreign" ]; then
        rel_new=$(mktemp "./${rel_part}newXXXXXXXX")
        return
    fi
    set -C
    : >"$rel_new" && set +C && return
    set +C
    return 1
}

# MODE OWNER: sets owner and mode of the new file, and renames it to its target.
rel_finish_file() {
    if [ -n "$2" ]; then chown -- "$2" "$rel_new" || return 1; fi
    chmod "$1" "$rel_new" && rel_rename "$rel_new" "$rel_there"
}

# PATH: keeps the file that was found, beside PATH under an unused name. A hard link is made, which
# never replaces anything.
rel_save_edit() {
    local up="${rel_there%"$rel_name"}" name="$rel_name.rel-saved" saved="${rel_part}saved" count=1
    cp -pP -- "$rel_found" "$saved" || return 1
    until rel_link "$saved" "$up$name"; do
        if [ ! -e "$up$name" ] && [ ! -L "$up$name" ]; then
            # A file system without hard links.
            rel_rename "$saved" "$up$name" || return 1
            break
        fi
        count=$((count + 1))
        name=$rel_name.rel-saved.$count
    done
    printf '%s' "${1%"$rel_name"}$name" >"$rel_tmp/kept"
}

# SUM: whether rel_found is a file with this digest.
rel_found_is() {
    local sum
    if [ -L "$rel_found" ]; then return 1; fi
    sum=$(sha256sum <"$rel_found")
    [ "${sum%% *}" = "$1" ]
}

# PATH SUM: removes the file that rel wrote; a copy of what others wrote since is kept beside it.
rel_unwrite() (
    if [ ! -e "$1" ] && [ ! -L "$1" ]; then exit 0; fi
    rel_beside "$1" rel_unwrite_there "$@"
)

rel_unwrite_there() {
    rel_pin "$1" || return 1
    if [ -n "$rel_found" ] && ! rel_found_is "$2"; then rel_save_edit "$1" || return 1; fi
    rm -f -- "$rel_there"
}

# PATH NAME: sets the variable NAME to mode, user and group of a file; to nothing if unknown.
rel_access_of() {
    rel_stat "$1"
    case $rel_facts in
    -*' '*' '*' '*) eval "$2=\${rel_facts% *}" ;;
    *) eval "$2=" ;;
    esac
}

# PATH FORMER [SUM [ACCESS]]: restores the former file. If the present one is neither that nor what
# rel wrote, a copy is kept beside it. Older scripts have no SUM: the digest of what rel wrote.
rel_write_back() ( rel_beside "$1" rel_write_back_there "$@" )

rel_write_back_there() {
    local sum=
    rel_pin "$1" || return 1
    if [ -n "$rel_found" ] && { [ -n "${3:-}" ] || [ -L "$2" ]; } && ! rel_found_is "${3:-}"; then
        if [ ! -L "$2" ]; then sum=$(sha256sum <"$2") || return 1; fi
        if ! rel_found_is "${sum%% *}"; then rel_save_edit "$1" || return 1; fi
    fi
    cp -pP -- "$2" "$rel_new" && rel_rename "$rel_new" "$rel_there"
}
