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

