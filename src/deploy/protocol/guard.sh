# The guard: one per session. Standard input is its lifeline: when that ends
# without a `bye`, the program at work is ended with all its processes and the
# journal says so. Reads a line, does it, answers by events:
#   run N   the next N bytes are a program: starts it in a session of its own
#   ask N   the next N bytes are questions (asked.sh); the first ones came with the guard
#   call N  the next N bytes are a call of a function below
#   beat    rel is still there
#   stop N  ends the program at work, if step N is at work in it
#   bye     leave

case $rel_root in
/*) ;;
*)
    # Relative to where a login starts.
    rel_root=${PWD%/}/$rel_root
    # Where nothing is kept there is none.
    rel_state=${rel_state:+${PWD%/}/$rel_state}
    rel_apart=${PWD%/}/$rel_apart
    ;;
esac

set -- cat chmod cp date dd flock head kill ln ls mkdir mkfifo mktemp mv readlink rm rmdir sed \
    setsid sha256sum sleep tail tar tr wc
if ! type "$@" >/dev/null 2>&1; then
    rel_missing=
    for rel_t in "$@"; do
        type "$rel_t" >/dev/null 2>&1 || rel_missing="$rel_missing $rel_t"
    done
    rel_emit missing "$rel_missing"
    exit 69
fi

# In memory where there is such a place: small files and secrets that live for a moment.
rel_tmp=
for rel_t in "${TMPDIR:-}" /dev/shm /tmp; do
    case $rel_t in
    /*) ;;
    *) continue ;;
    esac
    if mkdir -m 700 -- "$rel_t/rel.$rel_room" 2>/dev/null; then
        # A file system that is full still takes directories.
        if printf %65536s '' 2>/dev/null >"$rel_t/rel.$rel_room/umask"; then
            rel_tmp=$rel_t/rel.$rel_room
            break
        fi
        rm -rf -- "$rel_t/rel.$rel_room"
        rel_full=$rel_t
    fi
done
if [ -n "${rel_full:-}" ] && [ -n "$rel_tmp" ]; then rel_emit full "$rel_full" "${rel_tmp%/*}"; fi
if [ -z "$rel_tmp" ]; then
    # Once more, for its words.
    if rel_why=$(mkdir -m 700 -- "/tmp/rel.$rel_room" 2>&1); then
        rmdir -- "/tmp/rel.$rel_room"
        rel_why="${rel_full:-/tmp} is full"
    fi
    rel_emit roomless "$rel_why"
    exit 69
fi
if ! rel_find_state; then
    rm -rf -- "$rel_tmp"
    rel_emit untrusted "$rel_why"
    exit 77
fi
# Whatever the umask is, nothing that is made here can be changed by everybody, and nothing of
# root's by a group.
umask o-w
if [ "$rel_uid" = 0 ]; then umask g-w; fi
umask >"$rel_tmp/umask"
read -r rel_umask <"$rel_tmp/umask"
umask 077
trap '' HUP PIPE

# N: exactly N bytes of standard input and not one more. busybox's head reads ahead, and not
# every dd reads on after a short read; rel's first words have tried.
if [ -n "${rel_reads_on:-}" ]; then
    rel_take() { dd bs="$1" count=1 iflag=fullblock 2>/dev/null; }
elif rel_t=$(printf ab | { head -c 1 >/dev/null; cat; }) && [ "$rel_t" = b ]; then
    rel_take() { head -c "$1"; }
else
    rel_take() { dd bs=1 count="$1" 2>/dev/null; }
fi

rel_end_program() {
    rel_n=0
    # Between the fork and the number in the file there is a moment.
    while [ ! -s "$rel_tmp/pid" ] && [ ! -s "$rel_tmp/ended" ] && [ "$rel_n" -lt 20 ]; do
        sleep 0.1
        rel_n=$((rel_n + 1))
    done
    rel_leader=
    { read -r rel_leader <"$rel_tmp/pid"; } 2>/dev/null
    # As long as it is waited for, its number is its own.
    if [ -n "$rel_leader" ] && { rel_birth "$rel_program" ||
        rel_is_session "$rel_leader" '' "$rel_run"; }; then
        rel_end_group "$rel_leader"
    fi
}

# FILE: sets rel_1 and rel_2 to the run and the step that entered a scope, rel_3 to its id.
rel_read_scope() {
    { read -r rel_h rel_1 rel_2 rel_again; read -r rel_h rel_3; } <"$1"
    case $rel_2 in *[!0-9]* | '') rel_2=0 ;; esac
}

# Whether anything is owed.
rel_is_owing() {
    for rel_f in "$rel_state/scopes"/*; do
        if [ -s "$rel_f" ]; then return 0; fi
    done
    return 1
}

# EVENT FILE: leaves the scope that was read from FILE, with EVENT in the journal. Where it can not
# be left it fails; the first one sets rel_owed to its name and rel_why to what its way out said. The scope
# rel_abandons is given up then for rel_reason, if no other one that was entered later is owed.
rel_leave_scope() {
    rel_name=${2##*/}
    if rel_scope_leave "$rel_name" >"$rel_state/scopes.last" 2>&1; then
        rel_s=0
    elif [ "$rel_name" = "${rel_abandons:-}" ] && [ -z "$rel_owed" ] && rel_scope_abandon "$2"; then
        rel_s=0
    else
        rel_s=1
        if [ -z "$rel_owed" ]; then
            rel_owed=$rel_name
            rel_why=$(tail -n 5 -- "$rel_state/scopes.last" | tr '\t\n' '  ')
        fi
    fi
    cat -- "$rel_state/scopes.last" >>"$rel_state/scopes.log"
    # One that was entered again for a way back is entered once more when that goes on.
    if [ "$rel_s" -eq 0 ]; then
        if [ -n "$rel_again" ]; then set -- left; fi
        rel_journal "$1" "$rel_2" "$rel_3" "$rel_1" -
    fi
    return "$rel_s"
}

# EVENT: pays all that is owed, what was entered last first; the journal gets EVENT for each
# step that entered one. rel_owed is a scope that could not be left.
rel_scopes_leave() {
    rel_owed=
    rel_below=2147483647
    while :; do
        rel_top=-1
        for rel_f in "$rel_state/scopes"/*; do
            if [ ! -s "$rel_f" ]; then continue; fi
            rel_read_scope "$rel_f"
            if [ "$rel_2" -lt "$rel_below" ] && [ "$rel_2" -gt "$rel_top" ]; then rel_top=$rel_2; fi
        done
        if [ "$rel_top" -lt 0 ]; then break; fi
        rel_below=$rel_top
        for rel_f in "$rel_state/scopes"/*; do
            if [ ! -s "$rel_f" ]; then continue; fi
            rel_read_scope "$rel_f"
            if [ "$rel_2" -ne "$rel_top" ]; then continue; fi
            rel_leave_scope "$1" "$rel_f" || :
        done
    done
}

# WANTED...: removes the artifacts that are not among these digests.
rel_tidy_blobs() {
    for rel_d in "$rel_state/blobs"/*; do
        if [ ! -e "$rel_d" ] && [ ! -L "$rel_d" ]; then continue; fi
        case " $* " in
        *" ${rel_d##*/} "*) ;;
        *) rm -rf -- "$rel_d" ;;
        esac
    done
}

# EVENT DETAIL: says in the journal what became of the step at work.
rel_close_step() { if [ -s "$rel_tmp/at" ]; then rel_as_holder rel_close_it "$1" "$2"; fi; }

rel_close_it() {
    if [ -s "$rel_tmp/at" ]; then
        { IFS= read -r rel_1; IFS= read -r rel_2; IFS= read -r rel_3; IFS= read -r rel_4; } <"$rel_tmp/at"
        : >"$rel_tmp/at"
        # What was detached goes on, or has come to its end: the next run tells.
        if [ -n "$rel_4" ]; then
            rel_journal detached "$rel_1" "$rel_2" "$rel_3" -
        else
            rel_journal "$1" "$rel_1" "$rel_2" "$rel_3" "$2"
        fi
    fi
}

# The watch stays until nothing is held any more: it leaves in the place of a guard that was
# killed. It renews nothing meanwhile: a way out that hangs must not hold the host for ever.
rel_leave() {
    echo leave >"$rel_tmp/busy"
    rel_as_holder rel_leave_all
    if [ -n "${rel_dog:-}" ]; then kill "$rel_dog" 2>/dev/null; fi
    rel_token=
    rm -rf -- "$rel_tmp"
}

rel_leave_all() {
    rel_scopes_leave left
    rel_give_back
}

rel_cut() {
    # What follows may take longer than a silence.
    if [ -n "${rel_dog:-}" ]; then kill "$rel_dog" 2>/dev/null; rel_dog=; fi
    if [ "${rel_at_work:-}" = questions ]; then
        trap '' TERM
        kill -TERM 0
    fi
    if [ -s "$rel_tmp/program" ] || [ -s "$rel_tmp/pid" ]; then rel_end_program; fi
    rel_close_step interrupted 'the connection ended'
    # Not held any more: what was done under it is done again.
    rel_as_holder rel_scopes_leave undone
    rel_leave
}

# GUARD: renews the lease while rel is heard of. A line that was cut without a word leaves
# standard input open: whoever hears nothing for half the time of a lease acts as if it had
# ended, so that the lease is given back before others may take it. A session that only asks,
# and has left before its first beat, goes without: it holds nothing.
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
        elif [ -s "$rel_tmp/busy" ]; then
            # While a call is at work, nobody listens: then the line itself must tell. One
            # that waits for the line keeps no lease alive.
            rel_quiet=0
            read -r rel_busy <"$rel_tmp/busy"
            if [ "$rel_busy" = work ]; then rel_as_holder rel_renew; fi
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
            rel_cut
            # Last: where the line has room for no more words, this waits for its end.
            rel_emit silent >&3
            kill -KILL 0
        fi
    done
}

rel_start_watch() {
    if [ -n "${rel_dog:-}" ]; then return; fi
    printf '0\n' >"$rel_tmp/beat"
    rel_watch "$$" </dev/null 3>&1 >/dev/null 2>&1 &
    rel_dog=$!
}

# What is known of the end of the one before does not count for the next.
rel_forget_end() {
    if [ -s "$rel_tmp/told" ]; then
        : >"$rel_tmp/pid"
        : >"$rel_tmp/ended"
        : >"$rel_tmp/told"
    fi
}

# The subshell waits, so that the end is told even when the program was killed.
rel_start() {
    rel_forget_end
    rel_at_work=program
    {
        REL_RUN_ID=$rel_run setsid sh "$rel_tmp/program" "$rel_tmp" "$rel_umask" "${rel_token:-}" \
            "${rel_epoch:-}" "${rel_epoch_clock:-}" "$rel_uid" "$rel_gid" "$rel_state" \
            </dev/null 2>&1 &
        # One write: it is there whole or not yet.
        printf '%s\n' "$!" >"$rel_tmp/pid"
        wait "$!"
        rel_status=$?
        # Killed: what it was doing must not go on without it. It was reaped just now, so the
        # number of its session is not another's yet.
        if [ "$rel_status" -gt 128 ]; then rel_end_group "$!"; fi
        rel_tell_end "$rel_status"
    } </dev/null &
    rel_program=$!
    rel_start_watch
}

# STATUS: tells that the program has ended.
rel_tell_end() {
    # Its number may be another's from here on.
    echo "$1" >"$rel_tmp/ended"
    : >"$rel_tmp/pid"
    : >"$rel_tmp/work"
    if [ -n "${rel_token:-}" ] && ! rel_holds; then rel_tell_fenced; fi
    echo "$1" >"$rel_tmp/told"
    rel_emit ended "$1"
}

# Whoever waits for the program can be killed as well: then its end is found by looking for it.
# First whether it is there, then whether it has told its end: the other way round, one that ends
# between the two looks would be told twice.
rel_look_after() {
    if [ -z "${rel_at_work:-}" ] || rel_birth "$rel_program" || [ -s "$rel_tmp/told" ]; then
        return 0
    fi
    rel_leader=
    { read -r rel_leader <"$rel_tmp/pid"; } 2>/dev/null
    if [ -z "$rel_leader" ] || ! rel_birth "$rel_leader"; then rel_tell_end 137; fi
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
    echo line >"$rel_tmp/busy"
    while IFS=' ' read -r rel_size rel_sum; do
        rel_heard_of
        if [ "$rel_size" = 0 ]; then
            printf '%s\n' "$rel_sum" >"$rel_tmp/want"
            echo work >"$rel_tmp/busy"
            return
        fi
        rel_take "$rel_size" || return
    done
}

# TO BASE [LEFT NAMES [FOREIGN]]: a directory that arrives as a tar stream in chunks; in place whole or not
# at all. BASE is how the next one finds it. With LEFT, what arrives goes over the last one of
# BASE without NAMES, of which LEFT names are left. FOREIGN lets root write into a directory
# that another user can change.
rel_receive() {
    if ! rel_as_holder rel_receive_it "$1" "$2" "${3:-}" "${4:-}" "${5:-}"; then
        # The bytes are on their way: they must not be read as commands.
        rel_chunks >/dev/null
        rel_tell_fenced
    fi
}

rel_receive_it() (
    : >"$rel_tmp/answer"
    if [ -n "${5:-}" ]; then rel_foreign_ok=1; fi
    rel_beside "${1%/}" rel_receive_there "$@" >"$rel_tmp/words" 2>&1
    IFS= read -r rel_line <"$rel_tmp/answer" || {
        rel_chunks >/dev/null
        rel_line="refused $(head -n 1 "$rel_tmp/words")"
    }
    rel_emit "$rel_line"
)

# Takes the chunks, and leaves its answer.
rel_receive_there() {
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
    read -r rel_want <"$rel_tmp/want"
    read -r rel_s <"$rel_tmp/tar"
    if [ "$rel_s" != 0 ]; then
        printf 'refused %s\n' "$(head -n 1 "$rel_tmp/says")" >"$rel_tmp/answer"
    elif [ "$rel_want" != whole ]; then
        echo 'refused not all of it has arrived' >"$rel_tmp/answer"
    elif ! rel_take_place; then
        echo 'refused it can not be moved into place' >"$rel_tmp/answer"
    else
        if [ -n "$2" ] && rel_may_share; then rel_set_base "$2" "${1%/}"; fi
        echo received >"$rel_tmp/answer"
    fi
}

# Moves the new directory into its place, and what stood there out of it; or back again.
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

# BASE LEFT NAMES: fills the new directory with links to the files of the last one. What was
# written there since it was listed is counted, and then nothing of it is taken.
rel_link_base() {
    (
        # Another user could put other files in their place meanwhile.
        rel_may_share && cp -Rl -- "$rel_state/bases/$1/." "$rel_new" && cd -- "$rel_new" &&
            if [ -n "$3" ]; then printf '%s' "$3" | tr '\n' '\0' | xargs -0 rm -rf --; fi &&
            rel_n=$(find . | wc -l) && [ "$((rel_n))" -eq "$2" ]
    )
}

# BASE: tells what the last directory of that name holds, as far as it can be told: files of two
# modes that are ours, with their digests; all others; directories. See delta.rs.
rel_base() {
    rel_b=$rel_state/bases/$1/
    if [ -d "$rel_b" ] && command -v find >/dev/null 2>&1 && command -v xargs >/dev/null 2>&1; then
        (
            cd -- "$rel_b" && rel_me=$(id -u) &&
                find . -type f -perm 644 -user "$rel_me" -exec sha256sum -- {} + && echo -- &&
                find . -type f -perm 755 -user "$rel_me" -exec sha256sum -- {} + && echo -- &&
                find . ! -type d ! \( -type f -user "$rel_me" \( -perm 644 -o -perm 755 \) \) &&
                echo -- && find . -type d && echo --
        ) >"$rel_tmp/base" 2>/dev/null </dev/null || : >"$rel_tmp/base"
        rel_n=$(wc -c <"$rel_tmp/base")
        if [ "$((rel_n))" -gt 0 ] && [ "$((rel_n))" -le 16000000 ]; then
            rel_emit data "$((rel_n))"
            cat -- "$rel_tmp/base"
        fi
    fi
    rel_emit sent
}

# PATH: a directory's content, or one file, as a tar stream. All of it, or it is told that not:
# a piece that was not kept whole on its way is an end.
rel_send() {
    echo line >"$rel_tmp/busy"
    : >"$rel_tmp/tar"
    {
        if [ -d "$1" ]; then
            tar -C "$1" -cf - . 2>"$rel_tmp/words"
        else
            rel_p=${1%/*}
            if [ "$rel_p" = "$1" ]; then rel_p=.; fi
            tar -C "${rel_p:-/}" -cf - -- "./${1##*/}" 2>"$rel_tmp/words"
        fi
        printf '%s\n' "$?" >"$rel_tmp/tar"
    } </dev/null | while :; do
        rel_take 1048576 >"$rel_tmp/chunk" && rel_n=$(wc -c <"$rel_tmp/chunk") || exit 1
        if [ "$((rel_n))" -eq 0 ]; then exit 0; fi
        rel_heard_of
        rel_emit data "$((rel_n))"
        cat "$rel_tmp/chunk"
    done
    rel_whole=$?
    read -r rel_s <"$rel_tmp/tar" || rel_s=
    if [ "$rel_whole" -ne 0 ]; then
        rel_emit refused 'there is no room for what is sent'
    elif [ "$rel_s" != 0 ]; then
        rel_emit refused "$(head -n 1 "$rel_tmp/words")"
    else
        rel_emit sent
    fi
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

# Which machine this is, and for which host its state was written: rel compares both.
rel_t= rel_1=
{ IFS= read -r rel_t </etc/machine-id; } 2>/dev/null
for rel_2 in ed25519 ecdsa rsa; do
    { read -r rel_3 rel_1 rel_4 <"/etc/ssh/ssh_host_${rel_2}_key.pub"; } 2>/dev/null && break
done
rel_machine="${rel_t:--} ${rel_1:--}" rel_written=
rel_emit machine "$rel_machine"
if [ -n "$rel_state" ] && { IFS= read -r rel_written <"$rel_state/host"; } 2>/dev/null; then
    rel_emit state "$rel_written"
fi
rel_emit kept "$rel_state"
if [ -n "$rel_other" ] && [ ! -d "$rel_state" ]; then rel_emit apart "$rel_other"; fi
rel_emit hello "$rel_root"
if [ -n "$rel_is_asked" ]; then rel_start_asking rel_first; fi
while IFS= read -r rel_line; do
    case $rel_line in
    beat)
        rel_start_watch
        rel_heard_of
        rel_look_after
        ;;
    ask\ *)
        rel_settle
        rel_take "${rel_line#ask }" >"$rel_tmp/questions"
        rel_start_asking . "$rel_tmp/questions"
        ;;
    run\ *)
        rel_settle
        rel_take "${rel_line#run }" >"$rel_tmp/program"
        rel_start
        ;;
    call\ *)
        rel_start_watch
        rel_settle
        rel_text=$(rel_take "${rel_line#call }"; printf x)
        echo work >"$rel_tmp/busy"
        eval "${rel_text%x}"
        : >"$rel_tmp/busy"
        ;;
    stop\ *)
        { read -r rel_1 <"$rel_tmp/at"; } 2>/dev/null || rel_1=
        if [ "${rel_at_work:-}" = program ] && [ "$rel_1" = "${rel_line#stop }" ]; then
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
# What was asked is of our own group, and may not mind TERM.
if [ "${rel_at_work:-}" = questions ]; then kill -KILL 0; fi
