# Files with secrets. No digest of their content is kept.

# PATH MODE OWNER: writes the secret that rel_receive_secret took for this step. The former file
# stays in the undo directory with its times. Size and time in the mark, and the time of the mark
# itself, tell later whether something else was written.
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

# PATH MARK FORMER: restores the former file, or removes the file that was written.
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

# PATH MARK: whether a file is still the secret that was written with MARK. Older runs, and hosts
# without `stat -c`, leave an empty mark: then a file counts that is not newer.
rel_is_own_secret() {
    local now was
    if [ "$1" -nt "$2" ]; then return 1; fi
    if [ ! -s "$2" ] || ! now=$(stat -c '%s %Y' -- "$1" 2>/dev/null); then return 0; fi
    IFS= read -r was <"$2" && [ "$now" = "$was" ]
}
