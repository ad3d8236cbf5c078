# The guard: one per session. Standard input is its lifeline: when that ends
# without a `bye`, the program at work is ended with all its processes and the
# journal says so. Reads a line, does it, answers by events:
#   run N   the next N bytes are a program: starts it in a session of its own
#   call N  the next N bytes are a call of a function below
#   beat    rel is still there
#   stop    ends the program at work
#   bye     leave

case $rel_root in
/*) ;;
*)
    # Relative to where a login starts.
    rel_root=${PWD%/}/$rel_root
    rel_state=${PWD%/}/$rel_state
    ;;
esac

rel_missing=
for rel_t in cat chmod cp date dd flock head kill ln mkdir mkfifo mktemp mv readlink rm \
    sed setsid sha256sum sleep tail tar tee tr wc; do
    command -v "$rel_t" >/dev/null 2>&1 || rel_missing="$rel_missing $rel_t"
done
if [ -n "$rel_missing" ]; then
    rel_emit missing "$rel_missing"
    exit 69
fi

rel_umask=$(umask)
umask 077
if ! rel_tmp=$(mktemp -d "${TMPDIR:-/tmp}/rel.XXXXXX" 2>&1); then
    rel_emit missing "a directory for temporary files: $rel_tmp"
    exit 69
fi
trap '' HUP PIPE

# N: exactly N bytes of standard input and not one more. busybox's head reads ahead.
if [ "$(printf ab | { head -c 1 >/dev/null; cat; })" = b ]; then
    rel_take() { head -c "$1"; }
else
    rel_take() { dd bs="$1" count=1 iflag=fullblock 2>/dev/null; }
fi

rel_end_program() {
    rel_n=0
    # Between the fork and the number in the file there is a moment.
    while [ ! -s "$rel_tmp/pid" ] && [ ! -e "$rel_tmp/ended" ] && [ "$rel_n" -lt 20 ]; do
        sleep 0.1
        rel_n=$((rel_n + 1))
    done
    if [ -s "$rel_tmp/pid" ]; then rel_end_group "$(cat "$rel_tmp/pid")"; fi
}

# EVENT DETAIL: says in the journal what became of the step at work.
rel_close_step() { if [ -s "$rel_tmp/at" ]; then rel_as_holder rel_close_it "$1" "$2"; fi; }

rel_close_it() {
    if [ -s "$rel_tmp/at" ]; then
        { IFS= read -r rel_1; IFS= read -r rel_2; IFS= read -r rel_3; IFS= read -r rel_4; } <"$rel_tmp/at"
        rm -f -- "$rel_tmp/at"
        # What was detached goes on, or has come to its end: the next run tells.
        if [ -n "$rel_4" ]; then
            rel_journal detached "$rel_1" "$rel_2" "$rel_3" -
        else
            rel_journal "$1" "$rel_1" "$rel_2" "$rel_3" "$2"
        fi
    fi
}

rel_leave() {
    if [ -n "${rel_dog:-}" ]; then kill "$rel_dog" 2>/dev/null; fi
    rel_as_holder rel_scopes_leave left
    rel_as_holder rel_give_back
    rel_token=
    rm -rf -- "$rel_tmp"
}

rel_cut() {
    # What follows may take longer than a silence.
    if [ -n "${rel_dog:-}" ]; then kill "$rel_dog" 2>/dev/null; rel_dog=; fi
    if [ -n "${rel_at_work:-}" ]; then rel_end_program; fi
    rel_close_step interrupted 'the connection ended'
    # Not held any more: what was done under it is done again.
    rel_as_holder rel_scopes_leave undone
    rel_leave
}

# GUARD: renews the lease while rel is heard of. A line that was cut without a word leaves
# standard input open: whoever hears nothing for half the time of a lease acts as if it had
# ended, so that the lease is given back before others may take it.
rel_watch() {
    rel_heard=
    rel_quiet=0
    rel_dog=
    trap 'kill "$rel_sleep" 2>/dev/null; exit 0' TERM
    while :; do
        sleep "$rel_period" 3>&- &
        rel_sleep=$!
        wait "$rel_sleep"
        { read -r rel_token <"$rel_tmp/token"; } 2>/dev/null || rel_token=
        { read -r rel_beat <"$rel_tmp/beat"; } 2>/dev/null || [ -e "$rel_tmp/beat" ] || exit 0
        if [ "$rel_beat" != "$rel_heard" ]; then
            rel_quiet=0
            rel_as_holder rel_renew
        elif [ -e "$rel_tmp/busy" ]; then
            # While a call is at work, nobody listens: then the line itself must tell. One
            # that waits for the line keeps no lease alive.
            rel_quiet=0
            if [ ! -s "$rel_tmp/busy" ]; then rel_as_holder rel_renew; fi
        else
            rel_quiet=$((rel_quiet + 1))
        fi
        rel_heard=$rel_beat
        # Also where the guard was killed: this would keep the line open.
        if [ "$rel_quiet" -ge 3 ] || ! kill -0 "$1" 2>/dev/null; then
            # The guard with all that works for it here, but not this.
            trap '' TERM
            kill -TERM -"$1" 2>/dev/null
            kill -KILL "$1" 2>/dev/null
            rel_emit silent >&3
            rel_cut
            exit 0
        fi
    done
}

rel_start_watch() {
    if [ -n "${rel_dog:-}" ]; then return; fi
    printf '0\n' >"$rel_tmp/beat"
    rel_watch "$$" </dev/null 3>&1 >/dev/null 2>&1 &
    rel_dog=$!
}

# The subshell waits, so that the end is told even when the program was killed.
rel_start() {
    rm -f -- "$rel_tmp/pid" "$rel_tmp/ended"
    rel_at_work=1
    {
        setsid sh "$rel_tmp/program" "$rel_tmp" "$rel_umask" "${rel_token:-}" </dev/null 2>&1 &
        printf '%s' "$!" >"$rel_tmp/pid.new"
        mv -f -- "$rel_tmp/pid.new" "$rel_tmp/pid"
        wait "$!"
        rel_status=$?
        # Its number may be another's from here on.
        mv -f -- "$rel_tmp/pid" "$rel_tmp/ended"
        rm -f -- "$rel_tmp/work"
        if [ -n "${rel_token:-}" ] && ! rel_holds; then rel_tell_fenced; fi
        rel_emit ended "$rel_status"
    } </dev/null &
    rel_program=$!
    rel_start_watch
}

rel_settle() {
    if [ -n "${rel_at_work:-}" ]; then
        wait "$rel_program"
        rel_at_work=
    fi
}

rel_heard_of() {
    rel_beats=$((${rel_beats:-0} + 1))
    printf '%s\n' "$rel_beats" >"$rel_tmp/beat"
}

# Each piece is a sign of life.
rel_chunks() {
    printf line >"$rel_tmp/busy"
    while IFS=' ' read -r rel_size rel_sum; do
        rel_heard_of
        if [ "$rel_size" = 0 ]; then
            printf '%s\n' "$rel_sum" >"$rel_tmp/want"
            : >"$rel_tmp/busy"
            return
        fi
        rel_take "$rel_size" || return
    done
}

# TO: a directory that arrives as a tar stream in chunks; in place whole or not at all.
rel_receive() {
    if ! rel_as_holder rel_receive_it "$1"; then
        # The bytes are on their way: they must not be read as commands.
        rel_chunks >/dev/null
        rel_tell_fenced
    fi
}

rel_receive_it() {
    rel_part=${1%/}.rel-part
    rm -rf -- "$rel_part" "$rel_tmp/fifo" "$rel_tmp/want"
    if ! mkdir -p -- "$rel_part"; then
        # The bytes are on their way: they must not be read as commands.
        rel_chunks >/dev/null
        rel_emit refused 'its directory can not be made'
        return 0
    fi
    mkfifo "$rel_tmp/fifo"
    sha256sum <"$rel_tmp/fifo" >"$rel_tmp/sum" &
    rel_summer=$!
    rel_chunks | tee "$rel_tmp/fifo" | {
        tar -C "$rel_part" -xopf - 2>"$rel_tmp/words"
        printf '%s' "$?" >"$rel_tmp/tar"
        cat >/dev/null
    }
    wait "$rel_summer"
    read -r rel_sum rel_s <"$rel_tmp/sum"
    rel_want=
    if [ -s "$rel_tmp/want" ]; then read -r rel_want <"$rel_tmp/want"; fi
    if [ "$(cat "$rel_tmp/tar")" != 0 ]; then
        rel_emit refused "$(head -n 1 "$rel_tmp/words")"
    elif [ "$rel_sum" != "$rel_want" ]; then
        rel_emit refused 'the bytes that arrived are not those that were sent'
    else
        if [ -e "${1%/}" ]; then
            rm -rf -- "${1%/}.rel-old"
            mv -- "${1%/}" "${1%/}.rel-old"
        fi
        if mv -- "$rel_part" "${1%/}"; then rel_emit received; else rel_emit refused 'it can not be moved into place'; fi
        rm -rf -- "${1%/}.rel-old"
    fi
    rm -rf -- "$rel_part"
    return 0
}

# PATH: a directory's content, or one file, as a tar stream.
rel_send() {
    printf line >"$rel_tmp/busy"
    {
        if [ -d "$1" ]; then
            tar -C "$1" -cf - . 2>"$rel_tmp/words"
        else
            rel_p=$(rel_parent "$1")
            tar -C "${rel_p%x}" -cf - -- "${1##*/}" 2>"$rel_tmp/words"
        fi
        printf '%s' "$?" >"$rel_tmp/tar"
    } </dev/null | while :; do
        rel_take 1048576 >"$rel_tmp/chunk"
        rel_n=$(wc -c <"$rel_tmp/chunk")
        if [ "$((rel_n))" -eq 0 ]; then break; fi
        rel_heard_of
        rel_emit data "$((rel_n))"
        cat "$rel_tmp/chunk"
    done
    if [ "$(cat "$rel_tmp/tar")" = 0 ]; then rel_emit sent; else rel_emit refused "$(head -n 1 "$rel_tmp/words")"; fi
}

# SEQ SIZE: the next bytes are a secret that step SEQ writes. They lie in a private file until
# then; where there is no room, they must not be read as commands.
rel_keep() {
    rel_take "$2" | { cat >"$rel_tmp/secret.$1" 2>/dev/null || cat >/dev/null; }
    rel_n=$(wc -c <"$rel_tmp/secret.$1") || rel_n=0
    if [ "$((rel_n))" -eq "$2" ]; then
        rel_emit ready
    else
        rm -f -- "$rel_tmp/secret.$1"
        rel_emit refused 'there is no room for it'
    fi
}

rel_emit hello "$rel_root"
while IFS= read -r rel_line; do
    case $rel_line in
    beat)
        rel_heard_of
        ;;
    run\ *)
        rel_settle
        rel_take "${rel_line#run }" >"$rel_tmp/program"
        rel_start
        ;;
    call\ *)
        rel_settle
        rel_call=$(rel_take "${rel_line#call }"; printf x)
        : >"$rel_tmp/busy"
        eval "${rel_call%x}"
        rm -f -- "$rel_tmp/busy"
        ;;
    stop)
        if [ -n "${rel_at_work:-}" ]; then
            rel_end_program
            rel_close_step failed 'took too long'
        fi
        ;;
    bye)
        rel_settle
        rel_leave
        exit 0
        ;;
    esac
done
rel_cut
