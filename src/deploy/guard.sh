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
for rel_t in cat chmod cp date dd head kill ln mkdir mkfifo mktemp mv readlink rm \
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

rel_end_group() {
    kill -TERM -"$1" 2>/dev/null || return 0
    rel_n=0
    while [ "$rel_n" -lt 20 ] && kill -0 -"$1" 2>/dev/null; do
        sleep 0.1
        rel_n=$((rel_n + 1))
    done
    kill -KILL -"$1" 2>/dev/null
    return 0
}

rel_end_program() {
    rel_n=0
    # Between the fork and the number in the file there is a moment.
    while [ ! -s "$rel_tmp/pid" ] && [ "$rel_n" -lt 20 ]; do
        sleep 0.1
        rel_n=$((rel_n + 1))
    done
    if [ -s "$rel_tmp/pid" ]; then rel_end_group "$(cat "$rel_tmp/pid")"; fi
}

# EVENT DETAIL: says in the journal what became of the step at work.
rel_close_step() {
    if [ -s "$rel_tmp/at" ]; then
        { IFS= read -r rel_1; IFS= read -r rel_2; IFS= read -r rel_3; } <"$rel_tmp/at"
        rm -f -- "$rel_tmp/at"
        rel_journal "$1" "$rel_1" "$rel_2" "$rel_3" "$2"
    fi
}

rel_leave() {
    if [ -n "${rel_dog:-}" ]; then kill "$rel_dog" 2>/dev/null; fi
    if [ -n "${rel_locked:-}" ]; then rm -rf -- "$rel_state/lock"; fi
    rm -rf -- "$rel_tmp"
}

rel_cut() {
    if [ -n "${rel_at_work:-}" ]; then rel_end_program; fi
    rel_close_step interrupted 'the connection ended'
    rel_leave
}

# A line that was cut without a word leaves standard input open: whoever does not
# hear from rel for half a minute acts as if it had ended.
rel_watch() {
    rel_heard=
    rel_quiet=0
    while sleep 10; do
        rel_beat=$(cat "$rel_tmp/beat" 2>/dev/null) || exit 0
        # While a call is at work, nobody listens: then the line itself must tell.
        if [ "$rel_beat" = "$rel_heard" ] && [ ! -e "$rel_tmp/busy" ]; then rel_quiet=$((rel_quiet + 1)); else rel_quiet=0; fi
        rel_heard=$rel_beat
        if [ "$rel_quiet" -ge 3 ]; then
            rel_dog=
            kill -KILL "$1" 2>/dev/null
            rel_cut
            exit 0
        fi
    done
}

# The subshell waits, so that the end is told even when the program was killed.
rel_start() {
    rm -f -- "$rel_tmp/pid"
    rel_at_work=1
    {
        setsid sh "$rel_tmp/program" "$rel_tmp" "$rel_umask" </dev/null 2>&1 &
        printf '%s' "$!" >"$rel_tmp/pid.new"
        mv -f -- "$rel_tmp/pid.new" "$rel_tmp/pid"
        wait "$!"
        rel_emit ended "$?"
    } </dev/null &
    rel_program=$!
    if [ -z "${rel_dog:-}" ]; then
        printf 0 >"$rel_tmp/beat"
        rel_watch "$$" </dev/null >/dev/null 2>&1 &
        rel_dog=$!
    fi
}

rel_settle() {
    if [ -n "${rel_at_work:-}" ]; then
        wait "$rel_program"
        rel_at_work=
    fi
}

# SIZE: makes the state directory ours, if nobody else is at work; says whether the
# journal is still as long as when it was read.
rel_lock() {
    if ! mkdir -p -- "$rel_state/undo" "$rel_state/blobs" "$rel_state/services" 2>/dev/null; then
        rel_emit refused 'it can not be made'
        return
    fi
    rel_n=0
    until [ -n "${rel_locked:-}" ] || mkdir -- "$rel_state/lock" 2>/dev/null; do
        rel_owner='somebody who just came'
        { read -r rel_pid rel_born rel_owner <"$rel_state/lock/owner"; } 2>/dev/null || rel_pid=
        rel_n=$((rel_n + 1))
        # A guard whose connection was cut needs some seconds to clean up.
        if [ "$rel_n" -gt 40 ]; then
            rel_emit locked "$rel_owner"
            return
        fi
        if [ -n "$rel_pid" ]; then
            rel_b=$(rel_birth "$rel_pid") || rel_b=
            if [ "$rel_b" = "$rel_born" ]; then sleep 0.1; else rm -rf -- "$rel_state/lock"; fi
        elif [ "$rel_n" -gt 20 ] && [ ! -e "$rel_state/lock" ]; then
            rel_emit refused 'nothing can be written there'
            return
        elif [ "$rel_n" -gt 20 ]; then
            # Taken by somebody who never came to write their name.
            rm -rf -- "$rel_state/lock"
        else
            sleep 0.1
        fi
    done
    if [ -z "${rel_locked:-}" ]; then
        rel_locked=1
        printf '%s %s %s\n' "$$" "$(rel_birth "$$")" "$rel_who" >"$rel_state/lock/owner"
    fi
    if ! : >>"$rel_state/journal"; then
        rel_emit refused 'the journal can not be written'
        return
    fi
    rel_size=$(wc -c <"$rel_state/journal")
    if [ "$((rel_size))" != "$1" ]; then
        rel_emit moved
        return
    fi
    # A line torn by a crash must not swallow the next one.
    if [ -n "$(tail -c 1 "$rel_state/journal")" ]; then printf '\n' >>"$rel_state/journal"; fi
    rel_emit ready
}

rel_chunks() {
    while IFS=' ' read -r rel_size rel_sum; do
        if [ "$rel_size" = 0 ]; then
            printf '%s\n' "$rel_sum" >"$rel_tmp/want"
            return
        fi
        rel_take "$rel_size" || return
    done
}

# TO: a directory that arrives as a tar stream in chunks; in place whole or not at all.
rel_receive() {
    rel_part=${1%/}.rel-part
    rm -rf -- "$rel_part" "$rel_tmp/fifo" "$rel_tmp/want"
    if ! mkdir -p -- "$rel_part"; then
        # The bytes are on their way: they must not be read as commands.
        rel_chunks >/dev/null
        rel_emit refused 'its directory can not be made'
        return
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
}

# PATH: a directory's content, or one file, as a tar stream.
rel_send() {
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
        rel_beats=$((${rel_beats:-0} + 1))
        printf '%s' "$rel_beats" >"$rel_tmp/beat"
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
