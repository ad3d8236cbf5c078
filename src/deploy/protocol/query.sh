# Questions: the part of a session that answers them. By agreement it changes nothing.

# COMMAND...: runs questions in the background; the session reads commands meanwhile. All answers
# are sent in one piece; each ends with its tag and status.
rel_start_asking() {
    rel_forget_end
    rel_at_work=questions
    {
        "$@" >"$rel_tmp/answers"
        rel_emit answers
        cat -- "$rel_tmp/answers"
        echo 0 >"$rel_tmp/told"
        rel_emit asked
    } </dev/null 2>/dev/null &
    rel_program=$!
}

# TAG SCRIPT: answers with the output and the exit status of a script of a recipe. The script does
# not know the nonce, so it cannot send events.
rel_ask() {
    ( unset rel_nonce; set -eu; umask "$rel_umask"; cd -- "$rel_root" 2>/dev/null || cd /; eval "$2" ) 2>"$rel_tmp/words"
    rel_answered "$1" "$?"
}

# TAG SCRIPT: the same for a script of rel, which needs no subshell.
rel_look() {
    eval "$2" 2>"$rel_tmp/words"
    rel_answered "$1" "$?"
}

rel_answered() {
    if [ "$2" -ne 0 ] && [ -s "$rel_tmp/words" ]; then cat -- "$rel_tmp/words"; fi
    rel_emit answer "$1" "$2"
}

# Prints a line for each detached step whose end is not in the journal yet.
rel_detached_list() {
    local dir
    if [ ! -d "$rel_state/detached" ]; then return 0; fi
    for dir in "$rel_state/detached"/*; do
        if rel_detached_read "$dir"; then
            rel_detached_state "$dir"
            printf 'detached\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "${dir##*/}" \
                "$rel_d_id" "$rel_d_key" "$rel_d_does" "$rel_d_run" "$rel_d_seq" \
                "$rel_d_since" "$rel_d_state" "$rel_d_code" "$rel_d_end"
        fi
    done
}

# --- before a run: what could not be rolled back ------------------------------
# Each of these prints `NUMBER REASON` if a step could not be rolled back, and nothing otherwise.

# Sets rel_journal_dir to the state directory, or to the nearest directory above it that exists.
# Fails if it is not writable: then the run fails anyway, when it takes the lease.
rel_back_ground() {
    rel_journal_dir=$rel_state
    until [ -e "$rel_journal_dir" ]; do
        rel_journal_dir=${rel_journal_dir%/*}
        rel_journal_dir=${rel_journal_dir:-/}
    done
    [ -w "$rel_journal_dir" ]
}

# NUMBER PATH: a file that a step writes. Nothing is known if its directory does not exist yet.
rel_back_path() {
    local dir
    case $2 in
    */*) dir=${2%/*} ;;
    *) dir=. ;;
    esac
    dir=${dir:-/}
    if [ ! -d "$dir" ]; then return 0; fi
    if [ ! -w "$dir" ] || [ ! -x "$dir" ]; then
        printf '%s %s cannot be written: nothing could be brought back there\n' "$1" "$dir"
    elif [ -f "$2" ] && [ ! -r "$2" ]; then
        printf '%s %s cannot be read, and so not be kept\n' "$1" "$2"
    fi
}

# NUMBER NAME: a service that rel started, which a rollback would start again.
rel_back_service() {
    local why
    why=$(rel_can_start "$2") || printf '%s %s\n' "$1" "$why"
}

# NUMBER PATH ...: files that steps replace. Their copies need space in rel_journal_dir.
rel_back_room() {
    local number='' files=0 count="$#" need free
    while [ "$count" -gt 0 ]; do
        if [ -f "$2" ] && [ -r "$2" ]; then
            number=${number:-$1}
            set -- "$@" "$2"
            files=$((files + 1))
        fi
        shift 2
        count=$((count - 2))
    done
    if [ "$files" -eq 0 ]; then return 0; fi
    # The sum is in the last line.
    need=$(wc -c -- "$@") || return 0
    set -- ${need##*"$rel_newline"}
    case ${1:-x} in
    *[!0-9]*) return 0 ;;
    esac
    need=$(($1 / 1024 + 64 + files * 8))
    free=$(df -Pk -- "$rel_journal_dir" 2>/dev/null) || return 0
    # The name of a file system may have blanks: the numbers end at the percentage.
    free=${free#*"$rel_newline"}
    set -- ${free%%%*}
    while [ "$#" -gt 2 ]; do shift; done
    case ${1:-x} in
    *[!0-9]*) return 0 ;;
    esac
    if [ "$1" -lt "$need" ]; then
        printf '%s %s KiB are free in %s, of %s that the former files need\n' "$number" "$1" "$rel_journal_dir" "$need"
    fi
}

# NUMBER USER GROUP: the user that a step runs as, or the owner that it gives a file.
rel_user_there() {
    case $2 in
    '' | *[!0-9]*)
        if [ -n "$2" ] && ! id -u -- "$2" >/dev/null 2>&1; then
            printf '%s there is no user %s\n' "$1" "$2"
        fi
        ;;
    esac
    case $3 in
    '' | *[!0-9]*)
        if [ -n "$3" ] && ! rel_group_there "$3"; then printf '%s there is no group %s\n' "$1" "$3"; fi
        ;;
    esac
}

rel_group_there() {
    if command -v getent >/dev/null 2>&1; then
        getent group "$1" >/dev/null
    else
        sed 's/:.*//' /etc/group 2>/dev/null | grep -qxF -- "$1"
    fi
}
