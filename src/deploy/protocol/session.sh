# The main program of a session on a host: one for each connection of rel.
#
# It reads commands from standard input, one a line, and answers with events:
#   run N   the next N bytes are a program: starts it, in a Unix session of its own
#   ask N   the next N bytes are questions (query.sh); the first ones come with this program
#   call N  the next N bytes are a call of a function of lib/, evaluated here
#   beat    rel is still there
#   stop N  ends the program, if step N is at work in it
#   bye     ends the session
# If standard input ends without `bye`, the connection is lost: the program is ended with all its
# processes, and the journal gets a line that says so.
#
# Four processes share the directory $rel_tmp, which has the state of the session:
#   session   this shell: reads the commands
#   watchdog  its child (lib/watchdog.sh): renews the lease; ends the session when rel is silent,
#             or when this shell was killed
#   waiter    its child while something runs (rel_start_program, rel_start_asking): waits for it
#   program   a Unix session of its own, led by the shell that runs $rel_tmp/program
#
# file         content                 written by, when                read by, when
# -----------  ----------------------  ------------------------------  -----------------------------
# umask        the umask of steps      session, once at its start      session, at once
# token        the token of the lease  session, when the lease is      watchdog, each period
#                                      granted
# beat         a number that grows     session, at `beat` and for      watchdog, each period: the
#                                      each chunk of a transfer        same number twice: silence
# busy         `work`: a call runs;    session: around each `call`,    watchdog, each period: `work`
#              `line`: it waits for    in transfers, and when it ends  renews the lease; any content
#              rel; `leave`: it ends;  (rel_leave)                     is no silence
#              empty: reads commands
# program      text of the program     session, at `run`; emptied by   the program's shell; session
#                                      the program once it is read     and watchdog, at the end
# questions    text of the questions   session, at `ask`               waiter, at once
# pid          number of the leader    waiter, when the program has    session: `stop`, `beat` and
#              of the program          started; emptied at its end     the end; watchdog, its end
# work         number and birth of     program, when it holds the      another session that takes
#              the program             fence; emptied at its end       the lease over
# at           SEQ, ID, KEY of the     program, when a step begins;    session and watchdog, when
#              step at work; for a     emptied when it has ended, and  they close the step in the
#              detached one also its   when it is closed               journal; session at `stop`
#              directory
# ended        status of the program   waiter, or session where it     rel_end_program: it does not
#                                      was killed, as soon as it has   wait for `pid` then
#                                      ended
# told         the same                the same, before the event      session: at `beat`, and
#                                      `ended`; also after questions   before the next start, which
#                                                                      empties pid, ended, told
# answers      answers to questions    waiter                          waiter, when all are there
# secret.SEQ   a secret of step SEQ    session, at a call              program, in step SEQ
# started      CLOCK NAME: services    program, at each start          session, rel_report_started
# warned       warnings of the step    program, in the step            program, after the step
# kept         names of files that a   program, in an undo script      program, after the script
#              rollback has kept
# Other files there live within one function: words, answer, want, says, tar, chunk, base, proof,
# sealed, manifest, listed, former, new, and the FIFOs go and line. The state directory
# ($rel_state), which outlives the session, is described in lib/lease.sh, lib/undo.sh and
# lib/detached_state.sh.

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

# COMMAND...: ends the session where one of these commands is missing.
rel_check_tools() {
    local one missing=''
    if type "$@" >/dev/null 2>&1; then return; fi
    for one in "$@"; do
        type "$one" >/dev/null 2>&1 || missing="$missing $one"
    done
    rel_emit missing "$missing"
    exit 69
}

# Makes rel_tmp, in memory where there is such a place: for small files, and secrets that live for
# a moment.
rel_make_tmp() {
    local dir full='' why
    rel_tmp=
    for dir in "${TMPDIR:-}" /dev/shm /tmp; do
        case $dir in
        /*) ;;
        *) continue ;;
        esac
        if mkdir -m 700 -- "$dir/rel.$rel_session_id" 2>/dev/null; then
            # A file system that is full still takes directories.
            if printf %65536s '' 2>/dev/null >"$dir/rel.$rel_session_id/umask"; then
                rel_tmp=$dir/rel.$rel_session_id
                break
            fi
            rm -rf -- "$dir/rel.$rel_session_id"
            full=$dir
        fi
    done
    if [ -n "$full" ] && [ -n "$rel_tmp" ]; then rel_emit full "$full" "${rel_tmp%/*}"; fi
    if [ -n "$rel_tmp" ]; then return; fi
    # Once more, for its message.
    if why=$(mkdir -m 700 -- "/tmp/rel.$rel_session_id" 2>&1); then
        rmdir -- "/tmp/rel.$rel_session_id"
        why="${full:-/tmp} is full"
    fi
    rel_emit roomless "$why"
    exit 69
}

rel_check_tools cat chmod cp date dd flock head kill ln ls mkdir mkfifo mktemp mv readlink rm rmdir \
    sed setsid sha256sum sleep tail tar tr wc
rel_make_tmp
if ! rel_find_state; then
    rm -rf -- "$rel_tmp"
    rel_emit untrusted "$rel_why"
    exit 77
fi
# Whatever the umask is: nothing that is made here is writable by all users, and nothing of root's
# by a group.
umask o-w
if [ "$rel_uid" = 0 ]; then umask g-w; fi
umask >"$rel_tmp/umask"
read -r rel_umask <"$rel_tmp/umask"
umask 077
trap '' HUP PIPE

# rel_read_exact N: prints exactly the next N bytes of standard input. The head of busybox reads
# ahead, and not every dd reads on after a short read: the first line that rel sent has tried it.
if [ -n "${rel_reads_on:-}" ]; then
    rel_read_exact() { dd bs="$1" count=1 iflag=fullblock 2>/dev/null; }
elif rel_rest=$(printf ab | { head -c 1 >/dev/null; cat; }) && [ "$rel_rest" = b ]; then
    rel_read_exact() { head -c "$1"; }
else
    rel_read_exact() { dd bs=1 count="$1" 2>/dev/null; }
fi

# Sets rel_machine to which machine this is: its machine-id, and its public host key.
rel_find_machine() {
    local id='' key='' kind rest
    { IFS= read -r id </etc/machine-id; } 2>/dev/null
    for kind in ed25519 ecdsa rsa; do
        { read -r rest key rest <"/etc/ssh/ssh_host_${kind}_key.pub"; } 2>/dev/null && break
    done
    rel_machine="${id:--} ${key:--}"
}

# rel compares the machine with the one for which the state was written.
rel_find_machine
rel_written=
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
        rel_start_watchdog
        rel_record_beat
        rel_check_program
        ;;
    ask\ *)
        rel_wait_program
        rel_read_exact "${rel_line#ask }" >"$rel_tmp/questions"
        rel_start_asking . "$rel_tmp/questions"
        ;;
    run\ *)
        rel_wait_program
        rel_read_exact "${rel_line#run }" >"$rel_tmp/program"
        rel_start_program
        ;;
    call\ *)
        rel_start_watchdog
        rel_wait_program
        rel_text=$(rel_read_exact "${rel_line#call }"; printf x)
        echo work >"$rel_tmp/busy"
        eval "${rel_text%x}"
        : >"$rel_tmp/busy"
        ;;
    stop\ *)
        { read -r rel_seq <"$rel_tmp/at"; } 2>/dev/null || rel_seq=
        if [ "${rel_at_work:-}" = program ] && [ "$rel_seq" = "${rel_line#stop }" ]; then
            rel_end_program
            rel_close_step failed 'took too long'
        fi
        ;;
    bye)
        rel_wait_program
        rel_leave
        exit 0
        ;;
    esac
done
rel_on_disconnect
# Questions run in the process group of the session, and may ignore TERM.
if [ "${rel_at_work:-}" = questions ]; then kill -KILL 0; fi
