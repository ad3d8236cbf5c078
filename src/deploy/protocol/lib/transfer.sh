# Transfers of directories, files and secrets to this host and from it.

# Prints the bytes of chunks, `SIZE -` and then the bytes. The last one is `0 WORD`. Each counts as
# a beat.
rel_chunks() {
    local size='' sum=''
    echo line >"$rel_tmp/busy"
    while IFS=' ' read -r size sum; do
        rel_record_beat
        if [ "$size" = 0 ]; then
            printf '%s\n' "$sum" >"$rel_tmp/want"
            echo work >"$rel_tmp/busy"
            return
        fi
        rel_read_exact "$size" || return
    done
}

# TO BASE [LEFT NAMES [FOREIGN]]: receives a directory as a tar stream in chunks. It appears at TO
# as a whole or not at all. BASE is the name under which the next one finds it. With LEFT, the
# stream is extracted over the last directory of BASE without NAMES, which leaves LEFT names.
# FOREIGN lets root write into a foreign directory.
rel_receive() {
    if ! rel_as_holder rel_receive_it "$1" "$2" "${3:-}" "${4:-}" "${5:-}"; then
        # The chunks come anyway, and must not be read as commands.
        rel_chunks >/dev/null
        rel_report_fenced
    fi
}

rel_receive_it() (
    local line=''
    : >"$rel_tmp/answer"
    if [ -n "${5:-}" ]; then rel_foreign_ok=1; fi
    rel_beside "${1%/}" rel_receive_there "$@" >"$rel_tmp/words" 2>&1
    IFS= read -r line <"$rel_tmp/answer" || {
        rel_chunks >/dev/null
        line="refused $(head -n 1 "$rel_tmp/words")"
    }
    rel_emit "$line"
)

# Extracts the chunks, and writes the answer to a file.
rel_receive_there() {
    local want='' status=''
    : >"$rel_tmp/want"
    if ! mkdir -m 700 "$rel_new"; then return 1; fi
    if [ -n "$3" ] && ! rel_link_base "$2" "$3" "$4" 2>/dev/null; then
        rel_chunks >/dev/null
        echo 'baseless -' >"$rel_tmp/answer"
        return 0
    fi
    rel_chunks | {
        tar -C "$rel_new" -xopf - 2>"$rel_tmp/says"
        printf '%s\n' "$?" >"$rel_tmp/tar"
        cat >/dev/null
    }
    read -r want <"$rel_tmp/want"
    read -r status <"$rel_tmp/tar"
    if [ "$status" != 0 ]; then
        printf 'refused %s\n' "$(head -n 1 "$rel_tmp/says")" >"$rel_tmp/answer"
    elif [ "$want" != whole ]; then
        echo 'refused not all of it has arrived' >"$rel_tmp/answer"
    elif ! rel_take_place; then
        echo 'refused it cannot be moved into place' >"$rel_tmp/answer"
    else
        if [ -n "$2" ] && rel_may_share; then rel_set_base "$2" "${1%/}"; fi
        echo received >"$rel_tmp/answer"
    fi
}

# Renames the former directory away and the new one to its place; the former one back if that fails.
rel_take_place() {
    local former="${rel_part}former"
    if [ ! -e "$rel_there" ] && [ ! -L "$rel_there" ]; then
        rel_rename "$rel_new" "$rel_there"
        return
    fi
    printf '%s\n' "$rel_name" >"$former-name" && rel_rename "$rel_there" "$former" || return 1
    if rel_rename "$rel_new" "$rel_there"; then return 0; fi
    rel_rename "$former" "$rel_there"
    return 1
}

# BASE LEFT NAMES: fills the new directory with hard links to the files of the last one. Fails if
# the number of names shows that something was written there since it was listed.
rel_link_base() {
    local count
    (
        # Not if another user could replace files meanwhile.
        rel_may_share && cp -Rl -- "$rel_state/bases/$1/." "$rel_new" && cd -- "$rel_new" &&
            if [ -n "$3" ]; then printf '%s' "$3" | tr '\n' '\0' | xargs -0 rm -rf --; fi &&
            count=$(find . | wc -l) && [ "$((count))" -eq "$2" ]
    )
}

# BASE: sends a list of the last directory of that name: files of this user with mode 644 and 755,
# with their digests; all others; directories. See delta.rs.
rel_base() {
    local base="$rel_state/bases/$1/" me size
    if [ -d "$base" ] && command -v find >/dev/null 2>&1 && command -v xargs >/dev/null 2>&1; then
        (
            cd -- "$base" && me=$(id -u) &&
                find . -type f -perm 644 -user "$me" -exec sha256sum -- {} + && echo -- &&
                find . -type f -perm 755 -user "$me" -exec sha256sum -- {} + && echo -- &&
                find . ! -type d ! \( -type f -user "$me" \( -perm 644 -o -perm 755 \) \) &&
                echo -- && find . -type d && echo --
        ) >"$rel_tmp/base" 2>/dev/null </dev/null || : >"$rel_tmp/base"
        size=$(wc -c <"$rel_tmp/base")
        if [ "$((size))" -gt 0 ] && [ "$((size))" -le 16000000 ]; then
            rel_emit data "$((size))"
            cat -- "$rel_tmp/base"
        fi
    fi
    rel_emit sent
}

# PATH: sends the content of a directory, or one file, as a tar stream in pieces. Reports whether
# all of it was sent.
rel_send() {
    local dir size whole status=''
    echo line >"$rel_tmp/busy"
    : >"$rel_tmp/tar"
    {
        if [ -d "$1" ]; then
            tar -C "$1" -cf - . 2>"$rel_tmp/words"
        else
            dir=${1%/*}
            if [ "$dir" = "$1" ]; then dir=.; fi
            tar -C "${dir:-/}" -cf - -- "./${1##*/}" 2>"$rel_tmp/words"
        fi
        printf '%s\n' "$?" >"$rel_tmp/tar"
    } </dev/null | while :; do
        rel_read_exact 1048576 >"$rel_tmp/chunk" && size=$(wc -c <"$rel_tmp/chunk") || exit 1
        if [ "$((size))" -eq 0 ]; then exit 0; fi
        rel_record_beat
        rel_emit data "$((size))"
        cat "$rel_tmp/chunk"
    done
    whole=$?
    read -r status <"$rel_tmp/tar" || status=
    if [ "$whole" -ne 0 ]; then
        rel_emit refused 'there is no room for what is sent'
    elif [ "$status" != 0 ]; then
        rel_emit refused "$(head -n 1 "$rel_tmp/words")"
    else
        rel_emit sent
    fi
}

# SEQ SIZE: stores the next SIZE bytes: a secret, which step SEQ writes. If the disk is full, they
# are read all the same: they must not be read as commands.
rel_receive_secret() {
    local size
    rel_read_exact "$2" | { cat >"$rel_tmp/secret.$1" 2>/dev/null || cat >/dev/null; }
    size=$(wc -c <"$rel_tmp/secret.$1") || size=0
    if [ "$((size))" -eq "$2" ]; then
        rel_emit ready
    else
        rm -f -- "$rel_tmp/secret.$1"
        rel_emit refused 'there is no room for it'
    fi
}

# DIGEST...: removes the artifacts with other digests.
rel_tidy_blobs() {
    local one
    for one in "$rel_state/blobs"/*; do
        if [ ! -e "$one" ] && [ ! -L "$one" ]; then continue; fi
        case " $* " in
        *" ${one##*/} "*) ;;
        *) rm -rf -- "$one" ;;
        esac
    done
}
