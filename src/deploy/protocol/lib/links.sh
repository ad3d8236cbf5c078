# Symbolic links.

# PATH TARGET [back]: makes a symbolic link lead to TARGET; with `back` without an undo script.
rel_symlink() (
    local was='' led
    rel_enter_dir "$1" || exit 1
    if [ -L "./$rel_name" ]; then
        was=$(readlink -- "./$rel_name" && printf x) || exit 1
        was=${was%?x}
        if [ "$was" = "$2" ]; then exit 0; fi
    elif [ -e "./$rel_name" ]; then
        printf '%s exists and is not a symbolic link\n' "$1"
        exit 1
    fi
    if [ "${3:-}" != back ]; then
        # Whether its target existed: then it has to exist when the link is restored.
        led=
        if [ -e "./$rel_name" ]; then led=there; fi
        rel_call rel_symlink_back "$1" "$was" "$led" "$2"
        rel_undo_call || exit 1
    fi
    rel_with_parts rel_symlink_there "$2"
)

rel_symlink_there() { ln -s -- "$1" "$rel_new" && rel_rename "$rel_new" "$rel_there"; }

# PATH FORMER [LED [LEFT]]: restores the former target of a link, or removes the link. Fails if it
# does not lead to LEFT any more. Older scripts have no LED or LEFT.
rel_symlink_back() {
    if [ -n "${4:-}" ] && [ -z "${rel_overwrites:-}" ] && ! rel_link_is "$1" "$2" "$4"; then
        printf '%s points to %s, and not to %s as rel left it\n' "$1" "$rel_found" "$4"
        return 1
    fi
    if [ -n "$2" ]; then rel_symlink "$1" "$2" back; else rel_remove "$1"; fi
}

# PATH TARGET...: whether nothing is there, or a link to one of these targets. Sets rel_found to the
# target of the link, or to words for what is there.
rel_link_is() {
    local path="$1"
    rel_found=
    if [ -L "$path" ]; then
        rel_found=$(readlink -- "$path" && printf x) || return 1
        rel_found=${rel_found%?x}
    elif [ -e "$path" ]; then
        rel_found='what is no link'
        return 1
    else
        return 0
    fi
    shift
    while [ "$#" -gt 0 ]; do
        if [ "$rel_found" = "$1" ]; then return 0; fi
        shift
    done
    return 1
}
