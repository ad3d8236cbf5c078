# New content in a place that no other user can change, and the rename to its target: steps 2 and 3
# of foreign.sh.

# COMMAND...: runs it with rel_there as a name for the target, rel_part as a prefix for names that
# no other user can guess, and rel_new as a name for the new content. Their place is in the file
# `private` of the state directory until they are removed, for rel_sweep.
rel_with_parts() {
    local status=0
    if [ -s "$rel_state/private" ]; then rel_sweep; fi
    umask 077
    if [ -n "$rel_entered_foreign" ]; then
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

# COMMAND...: the same in a foreign directory, with a private directory below it. `..` stays the
# same directory: only the owner can move a directory into another one.
rel_in_private() {
    local status=0 private
    rel_part='' rel_there=../$rel_name rel_new=new
    private=$(mktemp -d ./.rel-XXXXXXXXXX) || return 1
    private=${private##*/}
    printf '%s\n' "$rel_entered_foreign/$private" >"$rel_state/private" || return 1
    cd -P -- "./$private" || return 1
    if ! rel_is_own_private "$rel_entered_foreign/$private"; then
        printf '%s was replaced by another user\n' "$rel_entered_foreign/$private"
        return 1
    fi
    "$@" || status=$?
    rel_remove_parts
    cd .. && rmdir -- "./$private" || return 1
    return "$status"
}

# Removes the files from which the new content was made.
rel_remove_parts() {
    local one
    for one in "./$rel_part"new* "./${rel_part}pinned" "./${rel_part}saved" \
        "./${rel_part}former" "./${rel_part}former-name"; do
        if [ -e "$one" ] || [ -L "$one" ]; then rm -rf -- "$one"; fi
    done
}

# PATH: whether the working directory is the private directory that was made there. Another user can
# have replaced it before it was entered.
rel_is_own_private() {
    local one
    rel_is_at "$1" && rel_is_private || return 1
    for one in * .[!.]* ..?*; do
        if [ -e "$one" ] || [ -L "$one" ]; then return 1; fi
    done
}

# Whether only this user can enter the working directory.
rel_is_private() {
    rel_stat .
    case $rel_facts in
    "drwx------ $rel_uid "*) ;;
    *) return 1 ;;
    esac
}

# PATH COMMAND...: enters the directory of PATH, and runs COMMAND as rel_with_parts does.
rel_beside() {
    rel_enter_dir "$1" || return 1
    shift
    rel_with_parts "$@"
}

# Removes files that a killed run has left. If that run had moved a directory away (`former`), it is
# moved back, unless something else is there.
rel_sweep() {
    local path='' name='' private='' up
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
            if [ -n "$rel_entered_foreign" ]; then exit 0; fi
            rel_part=$rel_name up=.
            ;;
        *)
            cd -P -- "./$rel_name" && rel_is_private || exit 0
            if [ -n "$rel_entered_foreign" ] && ! rel_is_at "$rel_entered_foreign/$rel_name"; then exit 0; fi
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

# FROM TO: rename(2). With -T (-h for mv of BSD) a link to a directory is replaced, not entered.
rel_rename() {
    if mv -fT -- "$1" "$2" 2>/dev/null || mv -fh -- "$1" "$2" 2>/dev/null; then return 0; fi
    # For its message.
    mv -fT -- "$1" "$2"
}

# FROM TO: link(2), which replaces nothing. If TO is a link to a directory, that is not entered.
rel_link() { ln -T -- "$1" "$2" 2>/dev/null || ln -h -- "$1" "$2" 2>/dev/null; }
