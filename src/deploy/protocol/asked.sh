# --- questions ---------------------------------------------------------------
# The guard's part that answers: it changes nothing by agreement.

# COMMAND...: asks what it says, away from the guard, which listens meanwhile. All answers are
# sent in one piece; each ends with its tag and status.
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

# TAG SCRIPT: what it prints, and its exit status; nothing that it does can speak for rel.
rel_ask() {
    ( unset rel_nonce; set -eu; umask "$rel_umask"; cd -- "$rel_root" 2>/dev/null || cd /; eval "$2" ) 2>"$rel_tmp/words"
    rel_answered "$1" "$?"
}

# TAG SCRIPT: the same for words of our own, which need no shell to themselves.
rel_look() {
    eval "$2" 2>"$rel_tmp/words"
    rel_answered "$1" "$?"
}

rel_answered() {
    if [ "$2" -ne 0 ] && [ -s "$rel_tmp/words" ]; then cat -- "$rel_tmp/words"; fi
    rel_emit answer "$1" "$2"
}

# Says what is detached here and not in the journal yet, a line each.
rel_detached_list() {
    if [ ! -d "$rel_state/detached" ]; then return 0; fi
    for rel_dd in "$rel_state/detached"/*; do
        if rel_detached_read "$rel_dd"; then
            rel_detached_state "$rel_dd"
            printf 'detached\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "${rel_dd##*/}" \
                "$rel_d_id" "$rel_d_key" "$rel_d_does" "$rel_d_run" "$rel_d_seq" \
                "$rel_d_since" "$rel_d_state" "$rel_d_code" "$rel_d_end"
        fi
    done
}

# --- the way back, before it is needed ----------------------------------------
# Each says `NUMBER WORDS` of what speaks against a step, and nothing else; asked with the facts.

# Where no journal can be kept nothing will be done, and that is told when it is begun.
rel_back_ground() {
    rel_d=$rel_state
    until [ -e "$rel_d" ]; do
        rel_d=${rel_d%/*}
        rel_d=${rel_d:-/}
    done
    [ -w "$rel_d" ]
}

# NUMBER PATH: what a step writes. Where its directory is made only then, nothing is known.
rel_back_path() {
    case $2 in
    */*) rel_p=${2%/*} ;;
    *) rel_p=. ;;
    esac
    rel_p=${rel_p:-/}
    if [ ! -d "$rel_p" ]; then return 0; fi
    if [ ! -w "$rel_p" ] || [ ! -x "$rel_p" ]; then
        printf '%s %s can not be written: nothing could be brought back there\n' "$1" "$rel_p"
    elif [ -f "$2" ] && [ ! -r "$2" ]; then
        printf '%s %s can not be read, and so not be kept\n' "$1" "$2"
    fi
}

# NUMBER NAME: a service that rel started is started again on the way back.
rel_back_service() {
    rel_why=$(rel_can_start "$2") || printf '%s %s\n' "$1" "$rel_why"
}

# NUMBER PATH ...: files that are kept while they are replaced need room beside the journal, in
# the directory that rel_back_ground has found.
rel_back_room() {
    rel_n=
    rel_files=0
    rel_i=$#
    while [ "$rel_i" -gt 0 ]; do
        if [ -f "$2" ] && [ -r "$2" ]; then
            rel_n=${rel_n:-$1}
            set -- "$@" "$2"
            rel_files=$((rel_files + 1))
        fi
        shift 2
        rel_i=$((rel_i - 2))
    done
    if [ "$rel_files" -eq 0 ]; then return 0; fi
    # The sum stands in the last line. What does not look so is not known.
    rel_need=$(wc -c -- "$@") || return 0
    set -- ${rel_need##*"$rel_newline"}
    case ${1:-x} in
    *[!0-9]*) return 0 ;;
    esac
    rel_need=$(($1 / 1024 + 64 + rel_files * 8))
    rel_free=$(df -Pk -- "$rel_d" 2>/dev/null) || return 0
    # The name of a file system may have blanks: the numbers end at the percentage.
    rel_free=${rel_free#*"$rel_newline"}
    set -- ${rel_free%%%*}
    while [ "$#" -gt 2 ]; do shift; done
    case ${1:-x} in
    *[!0-9]*) return 0 ;;
    esac
    if [ "$1" -lt "$rel_need" ]; then
        printf '%s %s KiB are free in %s, of %s that the former files need\n' "$rel_n" "$1" "$rel_d" "$rel_need"
    fi
}

# NUMBER USER GROUP: that a step runs as, or gives a file to.
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
