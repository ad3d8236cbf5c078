# Artifacts: from the directory in which they arrived to their destination.

# BLOB TO [BASE]: puts an artifact at TO; into that directory if TO ends in a slash. A directory
# that does not exist appears as a whole, by a rename: if it exists, it is complete. With BASE the
# artifact is moved, not copied, and the next one may share its files.
rel_put() (
    local blob="$rel_state/blobs/$1" count=0 one last to
    for one in "$blob"/* "$blob"/.[!.]*; do
        if [ -e "$one" ] || [ -L "$one" ]; then
            count=$((count + 1))
            last=$one
        fi
    done
    to=${2%/}
    if [ "$to" = "$2" ] && [ "$count" -eq 1 ] && [ -f "$last" ]; then
        # A single file gets the name TO.
        rel_beside "$to" rel_put_file "$to" "$last"
    elif [ -e "$to" ]; then
        rel_put_over "$blob" "$to"
    else
        rel_beside "$to" rel_put_new "$blob" "$to" "$(umask -S)" "${3:-}"
    fi
)

rel_put_file() { rel_pin "$1" && cp -p -- "$2" "$rel_new" && rel_rename "$rel_new" "$rel_there"; }

# BLOB TO MODE BASE: the same for a directory that does not exist.
rel_put_new() {
    local is_moved=
    if [ -n "$4" ] && [ ! -L "$1" ] && rel_may_share; then is_moved=1; fi
    if [ -n "$is_moved" ]; then
        mv -- "$1" "$rel_new"
    else
        mkdir -m 700 "$rel_new" && cp -Rp -- "$1/." "$rel_new"/
    fi && { chmod "$3" "$rel_new" 2>/dev/null || chmod 755 "$rel_new"; } && rel_rename "$rel_new" "$rel_there" || return 1
    if [ -n "$is_moved" ]; then
        # For another use of the same artifact in this run. The next run does not count a link.
        ln -s -- "$2" "$1" && rel_set_base "$4" "$2"
    fi
}

# DIR TO: copies the content of a directory over that of another one. tar makes each file anew; cp
# would write into the former one, which other releases may share.
rel_put_over() {
    local one
    if [ -L "$1" ] && [ "$1" -ef "$2" ]; then return 0; fi
    (
        cd -- "$1" || exit 1
        set --
        for one in * .[!.]* ..?*; do
            if [ -e "$one" ] || [ -L "$one" ]; then set -- "$@" "$one"; fi
        done
        if [ "$#" -gt 0 ]; then tar -cf - -- "$@"; fi
    ) >"$rel_state/over.tar" || return 1
    if [ -s "$rel_state/over.tar" ]; then
        rel_can_put_over "$2" && tar -C "$2" -xpf "$rel_state/over.tar" || return 1
    fi
    rm -f -- "$rel_state/over.tar"
}

# TO: fails if a directory that root would extract files into is foreign. Nothing holds these
# directories open while tar works, so `into-foreign` does not allow it.
rel_can_put_over() {
    local one
    rel_whoami
    if [ "$rel_uid" != 0 ]; then return 0; fi
    tar -tf "$rel_state/over.tar" >"$rel_state/over.list" || return 1
    set -- "$1" "$1"
    while IFS= read -r one; do
        case $one in
        */) set -- "$@" "$1/${one%/}" ;;
        esac
    done <"$rel_state/over.list"
    rm -f -- "$rel_state/over.list"
    shift
    for one in "$@"; do
        rel_find_foreign "$one"
        if [ -n "$rel_foreign" ]; then
            rel_explain_foreign "$one"
            return 1
        fi
    done
}
