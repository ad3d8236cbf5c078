# Steps: what a program does before, during and after the action of each.

# Ends a program whose session has lost the lease; the session reports that.
rel_must_hold() { if [ -n "${rel_token:-}" ] && ! rel_holds; then exit 75; fi; }

# The first call of a program: takes the shared lock of the fence, so that the lease is not taken
# over while the program lives. Its commands do not get the descriptor: one in the background would
# keep the lock.
rel_begin_program() {
    if [ -z "${rel_token:-}" ]; then return 0; fi
    exec 9>>"$rel_state/fence"
    rel_read_birth "$$"
    printf '%s %s\n' "$$" "$rel_birth" >"$rel_tmp/work" 2>/dev/null
    rel_lock_fence || exit 1
    rel_must_hold
    rel_now
}

# SEQ ID KEY PLACE: begins a step, which rel_do ends. A step is not begun if the journal cannot be
# written. PLACE is the position of the step in the run (see remote/roll_back.rs).
rel_step() {
    rel_must_hold
    rel_seq=$1 rel_id=$2 rel_key=$3 rel_failed_part=
    rel_emit start "$1"
    if ! {
        { [ -d "$rel_state/undo/$rel_run" ] || mkdir -p -- "$rel_state/undo/$rel_run"; } &&
            rel_no_way_back "$rel_state/undo/$rel_run/$rel_seq" &&
            printf '%s\n%s\n%s\n' "$1" "$2" "$3" >"$rel_tmp/at" &&
            rel_journal start "$1" "$2" "$3" "$4"
    } 2>&1; then
        rel_fail 1
    fi
    rel_verifies=
}

# FILE: removes the undo scripts of a former attempt at the step.
rel_no_way_back() {
    local one
    for one in "$1" "$1.late" "$1.start" "$1.last" "$1.check" "$1.asks" "$1.enter" "$1.port"; do
        if [ -e "$one" ]; then rm -f -- "$one"; fi
    done
}

rel_fail() {
    : >"$rel_tmp/at"
    rel_journal failed "$rel_seq" "$rel_id" "$rel_key" "$1" 2>&1
    rel_emit failed "$rel_seq" "$1" ${rel_failed_part:-}
    exit 1
}

# After a successful action: runs rel_verify, if the step has one. Sets rel_failed_part if that
# fails.
rel_do_verify() {
    rel_failed_part=
    if [ "$rel_status" -eq 0 ] && [ -n "$rel_verifies" ]; then
        ( unset rel_nonce; set -eu; umask "$rel_umask"; rel_verify ) </dev/null 2>&1 9>&-
        rel_status=$?
        if [ "$rel_status" -ne 0 ]; then rel_failed_part=verify; fi
    fi
}

# Runs rel_action, then rel_verify, without the nonce, so that they cannot send events. Not inside
# `if`, where sh ignores `set -e`.
rel_do() {
    local rel_line=''
    if [ -e "$rel_tmp/warned" ]; then rm -f -- "$rel_tmp/warned"; fi
    ( unset rel_nonce; set -eu; umask "$rel_umask"; rel_action ) </dev/null 2>&1 9>&-
    rel_status=$?
    rel_do_verify
    if [ -s "$rel_tmp/warned" ]; then
        while IFS= read -r rel_line; do rel_emit warned "$rel_line"; done <"$rel_tmp/warned"
    fi
    if [ "$rel_status" -ne 0 ]; then rel_fail "$rel_status"; fi
    : >"$rel_tmp/at"
    rel_journal 'done' "$rel_seq" "$rel_id" "$rel_key" - 2>&1 || rel_fail 1
    rel_emit 'done' "$rel_seq"
}

# TEXT: a warning of the step at work; the step goes on.
rel_warn() { printf '%s\n' "$1" >>"$rel_tmp/warned"; }

# SECONDS PAUSE SCRIPT: runs SCRIPT until it succeeds. Status 120 means that it never will.
rel_wait() (
    local rel_end rel_tries=0 rel_code
    set +e
    rel_now
    rel_end=$((rel_time + $1))
    while :; do
        ( set -eu; eval "$3" ) >"$rel_tmp/words" 2>&1
        rel_code=$?
        rel_tries=$((rel_tries + 1))
        if [ "$rel_code" -eq 0 ]; then exit 0; fi
        rel_now
        if [ "$rel_code" -eq 120 ] || [ "$rel_time" -ge "$rel_end" ]; then
            tail -n 20 "$rel_tmp/words"
            if [ "$rel_code" -ne 120 ]; then
                printf 'it did not hold within %s s: tried %s times, last exit status %s\n' \
                    "$1" "$rel_tries" "$rel_code"
            fi
            exit 1
        fi
        sleep "$2"
    done
)
