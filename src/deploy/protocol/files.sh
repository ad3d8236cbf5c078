# --- files -------------------------------------------------------------------
# Every file that steps make by an action of rel is made here, as trust.sh says. Bodies are
# subshells, so the caller stays where it is. They do not count on `set -e`, which does not
# hold inside of `if` and `||`.

# PATH: sets rel_found to a name for what stands at PATH which nobody else can change between a
# look at it and its use; to nothing where nothing stands there. Fails for what is neither a file
# nor a link: reading a FIFO can wait for ever.
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
    if [ -n "$rel_held" ]; then
        # The kernel can refuse a second name for a file of another user to all but root.
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

# Adds rel_call to the way back of the step at work; not where it needs none (`undo=#false`).
rel_undo_call() {
    if [ -n "${rel_keeps_nothing:-}" ]; then return 0; fi
    if [ -n "${rel_foreign_ok:-}" ]; then rel_undo rel_foreign_ok=1; fi
    rel_undo "$rel_call"
}

# PATH TARGET [back]: points a symbolic link somewhere.
rel_symlink() (
    rel_was=
    rel_enter_dir "$1" || exit 1
    if [ -L "./$rel_name" ]; then
        rel_was=$(readlink -- "./$rel_name" && printf x) || exit 1
        rel_was=${rel_was%?x}
        if [ "$rel_was" = "$2" ]; then exit 0; fi
    elif [ -e "./$rel_name" ]; then
        printf '%s is there and is no symbolic link\n' "$1"
        exit 1
    fi
    if [ "${3:-}" != back ]; then
        # Whether it led anywhere: then it must when it comes back.
        rel_led=
        if [ -e "./$rel_name" ]; then rel_led=there; fi
        rel_call rel_symlink_back "$1" "$rel_was" "$rel_led" "$2"
        rel_undo_call || exit 1
    fi
    rel_with_parts rel_symlink_there "$2"
)

rel_symlink_there() { ln -s -- "$1" "$rel_new" && rel_rename "$rel_new" "$rel_there"; }

# PATH FORMER [LED [LEFT]]: points a link where it pointed, or takes it away. One that somebody has
# pointed elsewhere than to LEFT since stays. Older runs left LED or LEFT out.
rel_symlink_back() {
    if [ -n "${4:-}" ] && [ -z "${rel_overwrites:-}" ] && ! rel_link_is "$1" "$2" "$4"; then
        printf '%s points to %s, and not to %s as rel left it\n' "$1" "$rel_found" "$4"
        return 1
    fi
    if [ -n "$2" ]; then rel_symlink "$1" "$2" back; else rel_remove "$1"; fi
}

# PATH TARGET...: whether nothing stands there, or a link to one of these. Sets rel_found to what
# does, in words.
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

# PATH: removes one file or link.
rel_remove() (
    if [ ! -e "$1" ] && [ ! -L "$1" ]; then exit 0; fi
    rel_enter_dir "$1" && rm -f -- "./$rel_name"
)

# DIR NAME: removes all that lies in a directory but NAME. A link is not entered.
rel_clear() (
    rel_enter_dir "$1/$2" || exit 1
    for rel_f in * .[!.]* ..?*; do
        if [ "$rel_f" != "$2" ] && { [ -e "./$rel_f" ] || [ -L "./$rel_f" ]; }; then
            rm -rf -- "./$rel_f" || exit 1
        fi
    done
)

# PATH [MODE]: makes a file of what standard input gives, without a way back.
rel_replace() ( rel_beside "$1" rel_replace_there "$@" )

rel_replace_there() {
    rel_pin "$1" && rel_make_new && cat >"$rel_new" && chmod "${2:-0644}" "$rel_new" && rel_rename "$rel_new" "$rel_there"
}

# PATH FILE: adds the content of FILE to a file, also in a directory that another user was
# given: databases lie in such. Owner and mode stay, and what a link leads to is not read: the
# other user would get a copy of it.
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

# PATH: makes an empty file, also in a directory that another user was given.
rel_mark() ( rel_foreign_ok=1; rel_beside "$1" rel_replace_there "$1" </dev/null )

# DIR HOST: takes a directory for the use at work, whose journal says what it has made there. One
# that another use has is refused: that would make things of the same names.
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
        # Of two at once the first one has it.
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

# PATH MODE CONTENT [OWNER]: writes a file. The former one stays in the undo directory.
rel_write() ( rel_beside "$1" rel_write_there "$@" )

rel_write_there() {
    local sum access old="$rel_state/undo/$rel_run/$rel_seq.old"
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

# Makes the new file, which must not be there yet, for its owner alone. mktemp gives a mode; a mask
# does not count in a directory with a default access list.
rel_make_new() {
    if [ -z "$rel_held" ]; then
        rel_new=$(mktemp "./${rel_part}newXXXXXXXX")
        return
    fi
    set -C
    : >"$rel_new" && set +C && return
    set +C
    return 1
}

# MODE OWNER: gives the new file its owner and its mode, and puts it into place.
rel_finish_file() {
    if [ -n "$2" ]; then chown -- "$2" "$rel_new" || return 1; fi
    chmod "$1" "$rel_new" && rel_rename "$rel_new" "$rel_there"
}

# PATH MODE OWNER: writes the secret that rel_keep took for this step. The former file waits in
# a private directory with its times whole, and no digest of either is kept: size and time in the
# mark, and its own time, tell whether somebody else wrote there since.
rel_write_secret() ( rel_beside "$1" rel_write_secret_there "$@" )

rel_write_secret_there() {
    local old="$rel_state/undo/$rel_run/$rel_seq.old" mark="$rel_state/undo/$rel_run/$rel_seq.mark"
    rel_pin "$1" || return 1
    if [ -n "$rel_found" ] && [ -z "${rel_keeps_nothing:-}" ]; then
        mkdir -p -- "$old" && cp -pP -- "$rel_found" "$old/$rel_name" || return 1
        rel_call rel_secret_back "$1" "$mark" "$old"
    else
        rel_call rel_secret_back "$1" "$mark" ''
    fi
    rel_undo_call && rel_make_new && cat -- "$rel_tmp/secret.$rel_seq" >"$rel_new" || return 1
    rm -f -- "$rel_tmp/secret.$rel_seq"
    rel_finish_file "$2" "$3" || return 1
    stat -c '%s %Y' -- "$rel_there" >"$mark" 2>/dev/null || : >"$mark"
}

# PATH MARK FORMER: brings the former file back, or takes away what was written.
rel_secret_back() ( rel_beside "$1" rel_secret_back_there "$@" )

rel_secret_back_there() {
    rel_pin "$1" || return 1
    if [ -n "$rel_found" ] && [ -f "$2" ] && ! rel_is_own_secret "$rel_found" "$2"; then
        rel_save_edit "$1" || return 1
    fi
    if [ -n "$3" ]; then
        cp -pP -- "$3/$rel_name" "$rel_new" && rel_rename "$rel_new" "$rel_there"
    else
        rm -f -- "$rel_there"
    fi
}

# PATH: keeps what was found, beside it under a name that nothing has: a link is made, which
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

# SUM: whether what was found is a file with this digest.
rel_found_is() {
    local sum
    if [ -L "$rel_found" ]; then return 1; fi
    sum=$(sha256sum <"$rel_found")
    [ "${sum%% *}" = "$1" ]
}

# PATH SUM: takes away the file that rel wrote; what somebody else wrote since is kept beside it.
rel_unwrite() (
    if [ ! -e "$1" ] && [ ! -L "$1" ]; then exit 0; fi
    rel_beside "$1" rel_unwrite_there "$@"
)

rel_unwrite_there() {
    rel_pin "$1" || return 1
    if [ -n "$rel_found" ] && ! rel_found_is "$2"; then rel_save_edit "$1" || return 1; fi
    rm -f -- "$rel_there"
}

# PATH NAME: sets the variable NAME to mode, user and group of a file; to nothing where that is
# not known.
rel_access_of() {
    rel_stat "$1"
    case $rel_facts in
    -*' '*' '*' '*) eval "$2=\${rel_facts% *}" ;;
    *) eval "$2=" ;;
    esac
}

# PATH FORMER [SUM [ACCESS]]: brings the former file back; what is neither that nor what rel wrote is
# kept beside it. Without SUM, which older runs left out, what rel wrote is not known.
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

# BLOB TO [BASE]: lays an artifact down; into a directory where TO ends in a slash. What is
# not there yet appears whole, by a rename: its presence says that it was laid down. With BASE
# it is not copied but moved there, and the next one may share its files.
rel_put() (
    rel_blob=$rel_state/blobs/$1
    rel_n=0
    for rel_f in "$rel_blob"/* "$rel_blob"/.[!.]*; do
        if [ -e "$rel_f" ] || [ -L "$rel_f" ]; then
            rel_n=$((rel_n + 1))
            rel_one=$rel_f
        fi
    done
    rel_to=${2%/}
    if [ "$rel_to" = "$2" ] && [ "$rel_n" -eq 1 ] && [ -f "$rel_one" ]; then
        # One file without a slash behind it keeps the new name.
        rel_beside "$rel_to" rel_put_file "$rel_to" "$rel_one"
    elif [ -e "$rel_to" ]; then
        rel_put_over "$rel_blob" "$rel_to"
    else
        rel_beside "$rel_to" rel_put_new "$rel_blob" "$rel_to" "$(umask -S)" "${3:-}"
    fi
)

rel_put_file() { rel_pin "$1" && cp -p -- "$2" "$rel_new" && rel_rename "$rel_new" "$rel_there"; }

# BLOB TO MODE BASE
rel_put_new() {
    local is_moved=
    if [ -n "$4" ] && [ ! -L "$1" ] && rel_may_share; then is_moved=1; fi
    if [ -n "$is_moved" ]; then
        mv -- "$1" "$rel_new"
    else
        mkdir -m 700 "$rel_new" && cp -Rp -- "$1/." "$rel_new"/
    fi && { chmod "$3" "$rel_new" 2>/dev/null || chmod 755 "$rel_new"; } && rel_rename "$rel_new" "$rel_there" || return 1
    if [ -n "$is_moved" ]; then
        # For another use of this run; the next run asks for what is no link.
        ln -s -- "$2" "$1" && rel_set_base "$4" "$2"
    fi
}

# DIR TO: puts what lies in a directory over what lies in another. Each file becomes a new one,
# which tar does and cp does not: the former may be shared with other releases.
rel_put_over() {
    if [ -L "$1" ] && [ "$1" -ef "$2" ]; then return 0; fi
    (
        cd -- "$1" || exit 1
        set --
        for rel_f in * .[!.]* ..?*; do
            if [ -e "$rel_f" ] || [ -L "$rel_f" ]; then set -- "$@" "$rel_f"; fi
        done
        if [ "$#" -gt 0 ]; then tar -cf - -- "$@"; fi
    ) >"$rel_state/over.tar" || return 1
    if [ -s "$rel_state/over.tar" ]; then
        rel_can_put_over "$2" && tar -C "$2" -xpf "$rel_state/over.tar" || return 1
    fi
    rm -f -- "$rel_state/over.tar"
}

# TO: whether none of the directories that root would put files into is foreign. Nothing holds
# these directories open while tar is at work, so `into-foreign` does not help.
rel_can_put_over() {
    rel_whoami
    if [ "$rel_uid" != 0 ]; then return 0; fi
    tar -tf "$rel_state/over.tar" >"$rel_state/over.list" || return 1
    set -- "$1" "$1"
    while IFS= read -r rel_f; do
        case $rel_f in
        */) set -- "$@" "$1/${rel_f%/}" ;;
        esac
    done <"$rel_state/over.list"
    rm -f -- "$rel_state/over.list"
    shift
    for rel_f in "$@"; do
        rel_find_foreign "$rel_f"
        if [ -n "$rel_foreign" ]; then
            rel_explain_foreign "$rel_f"
            return 1
        fi
    done
}

# LOG: opens a log to be appended to as descriptor 6.
rel_open_log() {
    rel_enter_dir "$1" || return 1
    if [ -z "$rel_held" ]; then
        exec 6>>"./$rel_name"
        return
    fi
    rel_with_parts rel_open_log_there "$1" || return 1
    umask "$rel_umask"
}

# Another user can put a link there, or a second name of a file of ours. So the file that is
# opened has no names but ../NAME and `pinned`.
rel_open_log_there() {
    local facts
    rel_pin "$1" || return 1
    if [ -z "$rel_found" ]; then
        if ! ( umask "$rel_umask" && : >pinned ) || ! rel_link pinned "$rel_there"; then
            printf '%s could not be made\n' "$1"
            return 1
        fi
        rel_found=pinned
    fi
    facts=$(ls -ldn -- "$rel_found") || return 1
    case $rel_found:$facts in
    pinned:-*' 2 '"$rel_uid "*) exec 6>>pinned ;;
    ../*:-*) exec 6>>"$rel_found" ;;
    *)
        printf '%s is a link, or has another name, or belongs to another user\n' "$1"
        return 1
        ;;
    esac
}
