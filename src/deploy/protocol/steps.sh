# The words of programs that the guard goes without: steps, their actions, and their ways back.
# Comes after the prelude. Functions that undo scripts
# call are a stored format, because a later rel runs them: they may gain, never change.

# Ends a program that acts for a holder and is none any more; the guard tells by whom.
rel_must_hold() { if [ -n "${rel_token:-}" ] && ! rel_holds; then exit 75; fi; }

# A program's first act: as long as it lives nobody takes the lease over. What it runs does
# not hold the fence, or what goes on in the background would hold it for ever.
rel_enter() {
    if [ -z "${rel_token:-}" ]; then return 0; fi
    exec 9>>"$rel_state/fence"
    rel_birth "$$"
    printf '%s %s\n' "$$" "$rel_b" >"$rel_tmp/work" 2>/dev/null
    rel_stand || exit 1
    rel_must_hold
    rel_now
}

# TEXT: sets rel_q to it as one word that sh reads back.
rel_quote() {
    rel_q= rel_rest=$1
    while :; do
        case $rel_rest in
        *\'*) rel_q="$rel_q${rel_rest%%\'*}'\\''" rel_rest=${rel_rest#*\'} ;;
        *) break ;;
        esac
    done
    rel_q="'$rel_q$rel_rest'"
}

# NAME ARGUMENT...: sets rel_call to the line that calls it.
rel_call() {
    rel_call=$1
    shift
    for rel_c in "$@"; do
        rel_quote "$rel_c"
        rel_call="$rel_call $rel_q"
    done
}

# Adds a line to the way back of the step at work. `late` ones wait until all hosts have gone back,
# because a restart must find the former files; `last` ones wait for these as well. `start` ones
# start what may depend on such a service: with the `late` ones, in the order of the steps, where
# there are any; else in their turn.
rel_undo() { printf '%s\n' "$1" >>"$rel_state/undo/$rel_run/$rel_seq"; }

rel_undo_late() { printf '%s\n' "$1" >>"$rel_state/undo/$rel_run/$rel_seq.late"; }

rel_undo_start() { printf '%s\n' "$1" >>"$rel_state/undo/$rel_run/$rel_seq.start"; }

rel_undo_last() { printf '%s\n' "$1" >>"$rel_state/undo/$rel_run/$rel_seq.last"; }

# SCRIPT: what a rollback asks before anything goes back.
rel_rollback_check() { printf '%s\n' "$1" >>"$rel_state/undo/$rel_run/$rel_seq.check"; }

# What a step that only asks has found is not true any more when its run has gone back.
rel_only_asks() { : >"$rel_state/undo/$rel_run/$rel_seq.asks"; }

# --- steps -------------------------------------------------------------------

# SEQ ID KEY PLACE: from here on until rel_do, this step is at work. What can not be written
# down is not begun. PLACE says where it stands in the run (see undo.rs).
rel_step() {
    rel_must_hold
    rel_seq=$1 rel_id=$2 rel_key=$3 rel_part=
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

# FILE: removes what a former try of the step has laid down there.
rel_no_way_back() {
    for rel_c in "$1" "$1.late" "$1.start" "$1.last" "$1.check" "$1.asks" "$1.enter" "$1.port"; do
        if [ -e "$rel_c" ]; then rm -f -- "$rel_c"; fi
    done
}

rel_fail() {
    : >"$rel_tmp/at"
    rel_journal failed "$rel_seq" "$rel_id" "$rel_key" "$1" 2>&1
    rel_emit failed "$rel_seq" "$1" ${rel_part:-}
    exit 1
}

# After an action that succeeded: runs rel_verify, if the step has one. Where that fails, rel_part
# says so.
rel_do_verify() {
    rel_part=
    if [ "$rel_status" -eq 0 ] && [ -n "$rel_verifies" ]; then
        ( unset rel_nonce; set -eu; umask "$rel_umask"; rel_verify ) </dev/null 2>&1 9>&-
        rel_status=$?
        if [ "$rel_status" -ne 0 ]; then rel_part=verify; fi
    fi
}

# Runs rel_action, then rel_verify, neither of which can speak for rel. Not inside `if`: there sh ignores `set -e`.
rel_do() {
    if [ -e "$rel_tmp/warned" ]; then rm -f -- "$rel_tmp/warned"; fi
    ( unset rel_nonce; set -eu; umask "$rel_umask"; rel_action ) </dev/null 2>&1 9>&-
    rel_status=$?
    rel_do_verify
    if [ -s "$rel_tmp/warned" ]; then
        while IFS= read -r rel_l; do rel_emit warned "$rel_l"; done <"$rel_tmp/warned"
    fi
    if [ "$rel_status" -ne 0 ]; then rel_fail "$rel_status"; fi
    : >"$rel_tmp/at"
    rel_journal 'done' "$rel_seq" "$rel_id" "$rel_key" - 2>&1 || rel_fail 1
    rel_emit 'done' "$rel_seq"
}

# NAME VALUE: remembers a value in the journal, as {notes.NAME}; rel_drop forgets it.
rel_note() { rel_column "$2"; rel_journal note "$rel_seq" "$rel_use" "$1" "$rel_c"; }

rel_drop() { rel_column "$2"; rel_journal drop "$rel_seq" "$rel_use" "$1" "$rel_c"; }

# TEXT: sets rel_c to it as one column of the journal.
rel_column() {
    rel_c=$1
    case $1 in *[!-_./:@A-Za-z0-9]*) rel_c=$(printf '%s' "$1" | tr '\t\n' '  ') ;; esac
}

# PATH MARK: whether a file is still the secret that was written there with MARK. Older runs, and
# hosts without such a `stat`, leave an empty mark: then one that is not newer counts.
rel_is_own_secret() {
    local now was
    if [ "$1" -nt "$2" ]; then return 1; fi
    if [ ! -s "$2" ] || ! now=$(stat -c '%s %Y' -- "$1" 2>/dev/null); then return 0; fi
    IFS= read -r was <"$2" && [ "$now" = "$was" ]
}

# TEXT: a warning of the step at work, for a person; the step goes on.
rel_warn() { printf '%s\n' "$1" >>"$rel_tmp/warned"; }

# NOTE KEEP DIR CURRENT FORMER VALUES...: removes the oldest noted ones below DIR, with
# their marks, until KEEP are left; never CURRENT or FORMER, and nothing un-noted. One that is not
# there is none of them: what it has left goes at once. One that can not be removed stays noted: the
# next time tries again.
rel_prune() {
    local note="$1" keep="$2" dir="$3" current="$4" former="$5" count one
    shift 5
    count=$#
    for one in "$@"; do
        if [ "$one" = "$current" ] || [ -d "$dir/$one" ]; then
            set -- "$@" "$one"
        else
            rel_prune_one "$note" "$dir" "$one"
        fi
    done
    shift "$count"
    rel_old "$keep" "$current" "$former" "$@" | while IFS= read -r one; do
        rel_prune_one "$note" "$dir" "$one"
    done
}

# NOTE DIR VALUE: removes one of them.
rel_prune_one() {
    local words
    if [ -d "$2" ] && ! words=$(rel_remove_whole "$2/$3" 2>&1); then
        rel_warn "$2/$3 could not be removed, and will be tried again: ${words%%"$rel_newline"*}"
        return 0
    fi
    rel_drop "$1" "$3"
}

# PATH: removes a directory and its mark. What is cut off leaves no part under that name, nor with
# that mark: it would pass for the whole.
rel_remove_whole() (
    rel_enter_dir "$1" || exit 1
    if [ -d "./$rel_name" ]; then
        rm -rf -- "./$rel_name.rel-gone" &&
            rel_rename "./$rel_name" "./$rel_name.rel-gone" || exit 1
    fi
    rm -f -- "./$rel_name.rel-copy" && rm -rf -- "./$rel_name.rel-gone"
)

# NAME KEEP DIR CURRENT FORMER VALUES...: the same where CURRENT may have to go back yet: then FORMER
# is needed, and has one of the places.
rel_prune_beside() {
    local name="$1" keep="$2" dir="$3" current="$4" former="$5" count one
    shift 5
    count=$#
    for one in "$@"; do
        if [ "$one" != "$former" ]; then set -- "$@" "$one"; fi
    done
    shift "$count"
    if [ "$former" = - ]; then keep=$((keep + 1)); fi
    rel_prune "$name" "$keep" "$dir" "$current" "$former" "$@"
}

# NAME CURRENT FORMER VALUES...: notes CURRENT as a `try`, unless it is among VALUES, which are all
# that are noted as `try` or as NAME; FORMER counts as NAME from here on, if it is among them.
rel_announce() {
    local name="$1" current="$2" former="$3" one
    shift 3
    for one in "$@"; do
        if [ "$one" = "$former" ]; then
            rel_note "$name" "$former"
            rel_drop try "$former"
        fi
    done
    for one in "$@"; do
        if [ "$one" = "$current" ]; then return 0; fi
    done
    rel_note try "$current"
}

# --- services ----------------------------------------------------------------

# SECONDS PAUSE SCRIPT: tries until it succeeds; 120 says that it never will.
rel_wait() (
    set +e
    rel_now
    rel_end=$((rel_time + $1))
    rel_n=0
    while :; do
        ( set -eu; eval "$3" ) >"$rel_tmp/words" 2>&1
        rel_s=$?
        rel_n=$((rel_n + 1))
        if [ "$rel_s" -eq 0 ]; then exit 0; fi
        rel_now
        if [ "$rel_s" -eq 120 ] || [ "$rel_time" -ge "$rel_end" ]; then
            tail -n 20 "$rel_tmp/words"
            if [ "$rel_s" -ne 120 ]; then
                printf 'it did not hold within %s s: tried %s times, last exit status %s\n' "$1" "$rel_n" "$rel_s"
            fi
            exit 1
        fi
        sleep "$2"
    done
)

# NAME [DIGEST]: stops a service; with the digest of how it was started, as the way back of its
# first start.
rel_service_stop() {
    if [ -n "${2:-}" ] && [ -d "$rel_state/services/$1" ]; then
        : >"$rel_state/services/$1/unstarted"
    fi
    rel_sd=$rel_state/services/$1
    if ! rel_service_alive "$1"; then
        rm -f -- "$rel_sd/pid"
        return 0
    fi
    if [ -s "$rel_sd/stop" ]; then
        ( set -eu; . "$rel_sd/stop" ) </dev/null || printf 'the stop command of %s failed\n' "$1"
    else
        kill -TERM -"$rel_pid" 2>/dev/null || kill -TERM "$rel_pid" 2>/dev/null || :
    fi
    rel_n=0
    while rel_service_alive "$1"; do
        rel_n=$((rel_n + 1))
        if [ "$rel_n" -gt 100 ]; then
            printf '%s did not stop within 10 s and is killed\n' "$1"
            kill -KILL -"$rel_pid" 2>/dev/null || kill -KILL "$rel_pid" 2>/dev/null || :
        fi
        if [ "$rel_n" -gt 120 ]; then return 1; fi
        sleep 0.1
    done
    rm -f -- "$rel_sd/pid"
}

# Starts what the service's run script says, in a session of its own, with no
# descriptor of ours: the connection must be able to end. It waits until its number is written
# down; where that does not come about it never begins, or nobody could end it.
rel_service_go() {
    local rel_foreign_ok="${rel_foreign_ok:-}" from="$PWD"
    # A way back that is run twice starts one.
    if rel_service_alive "$1"; then return 0; fi
    rel_sd=$rel_state/services/$1
    # What stopped it found it running because of a run that has gone back before it.
    if [ -e "$rel_sd/unstarted" ]; then return 0; fi
    if [ -e "$rel_sd/foreign-ok" ]; then rel_foreign_ok=1; fi
    rel_l=$(cat -- "$rel_sd/log")
    rel_open_log "$rel_l" || return 1
    cd -- "$from" || return 1
    rm -f -- "$rel_tmp/go"
    mkfifo -- "$rel_tmp/go"
    exec 7<>"$rel_tmp/go"
    setsid sh -c 'unset REL_RUN_ID; read -r rel_go && exec sh "$1" </dev/null' sh "$rel_sd/run" \
        <"$rel_tmp/go" >&6 2>&1 6>&- 7>&- &
    rel_pid=$!
    rel_birth "$rel_pid" || :
    printf '%s %s\n' "$rel_pid" "$rel_b" >"$rel_sd/pid.new"
    mv -f -- "$rel_sd/pid.new" "$rel_sd/pid"
    echo go >&7
    exec 6>&- 7>&-
    # A command that is wrong ends at once; the rest is for its own readiness.
    sleep 0.2
    rel_ok=1
    if rel_service_alive "$1" && [ -s "$rel_sd/ready" ]; then
        rel_ready=$(cat "$rel_sd/ready")
        rel_within=$(cat "$rel_sd/within")
        rel_call rel_service_alive "$1"
        rel_wait "$rel_within" 0.2 "$rel_call || exit 120
$rel_ready" || rel_ok=
    fi
    if [ -z "$rel_ok" ] || ! rel_service_alive "$1"; then
        if rel_service_alive "$1"; then printf '%s is not ready\n' "$1"; else printf '%s has ended\n' "$1"; fi
        if rel_is_readable "$rel_l"; then tail -n 20 -- "$rel_l" 2>/dev/null; fi
        printf 'more in %s\n' "$rel_l"
        return 1
    fi
    rel_tick
    printf '%s %s\n' "$rel_clock" "$1" >>"$rel_tmp/started"
}

# NAME LOG RUN STOP READY SECONDS: scripts. A service that runs is restarted. Its way back has the
# digest of RUN, by which rel_prove_step knows what was left.
rel_service() {
    rel_sd=$rel_state/services/$1
    rel_sum=$(printf '%s\n' "$3" | sha256sum) || return 1
    rel_sum=${rel_sum%% *}
    mkdir -p -- "$rel_sd"
    rm -f -- "$rel_sd/unstarted"
    if rel_service_alive "$1"; then
        rel_service_keep "$1" "$rel_state/undo/$rel_run/$rel_seq.run" || return 1
        rel_call rel_service_back "$1" "$rel_state/undo/$rel_run/$rel_seq.run" "$rel_sum"
        rel_undo_late "$rel_call"
        rel_service_stop "$1"
    else
        rel_call rel_service_stop "$1" "$rel_sum"
        rel_undo "$rel_call"
    fi
    if [ -n "${rel_foreign_ok:-}" ]; then : >"$rel_sd/foreign-ok"; else rm -f -- "$rel_sd/foreign-ok"; fi
    printf '%s\n' "$3" >"$rel_sd/run"
    printf '%s' "$4" >"$rel_sd/stop"
    printf '%s' "$2" >"$rel_sd/log"
    printf '%s' "$5" >"$rel_sd/ready"
    printf '%s' "$6" >"$rel_sd/within"
    printf '%s\n' "${rel_use:-}" >"$rel_sd/use"
    rel_service_go "$1"
}

# NAME FILE: keeps how a service was started: its script as FILE, the rest beside it.
rel_service_keep() {
    local one from="$rel_state/services/$1"
    for one in stop log ready within foreign-ok; do
        if [ -e "$from/$one" ]; then cp -p -- "$from/$one" "$2.$one" || return 1; fi
    done
    cp -p -- "$from/run" "$2"
}

# NAME FILE: starts a service again as it was kept. Older runs kept its script alone.
rel_service_back() {
    local one to="$rel_state/services/$1"
    # As it is stopped now. It ran before, whatever a later attempt at the step found and took back.
    rel_service_stop "$1"
    rm -f -- "$to/unstarted"
    if [ -e "$2.log" ]; then
        for one in stop log ready within foreign-ok; do
            if [ -e "$2.$one" ]; then cp -p -- "$2.$one" "$to/$one"; else rm -f -- "$to/$one"; fi || return 1
        done
    fi
    cp -p -- "$2" "$to/run"
    rel_service_go "$1"
}

# START STATUS STOP SECONDS: a service that has a manager already. START starts it, or
# restarts it where it runs. The way back: restarted if it was up, else stopped.
rel_managed() {
    set +e
    ( set -eu; eval "$2" ) >/dev/null 2>&1
    rel_s=$?
    # One that was killed has not answered.
    if [ "$rel_s" -gt 128 ]; then
        printf 'what asks whether it runs was killed\n'
        return "$rel_s"
    fi
    if [ "$rel_s" -eq 0 ]; then
        rel_undo_late "$1"
    elif [ -n "$3" ]; then
        rel_undo "$3"
    fi
    ( set -eu; eval "$1" )
    rel_s=$?
    if [ "$rel_s" -ne 0 ]; then return "$rel_s"; fi
    rel_wait "$4" 0.2 "$2"
}

# --- scopes ------------------------------------------------------------------

# NAME LEAVE [ENTER [PORT]]: from here on LEAVE is owed. It is written down before the scope is
# entered; the end of the run, however it ends, pays it, or else the next run. ENTER is how the way
# back enters it again, PORT the port that rel opens for it then.
rel_scope() {
    local back
    rel_call rel_scope_leave "$1"
    rel_undo "$rel_call"
    if [ "$#" -gt 2 ]; then
        rel_call rel_scope_owe "$1" "$2" again
        back=$rel_state/undo/$rel_run/$rel_seq
        printf '# %s\n%s\n%s\n' "$1" "$rel_call" "$3" >"$back.enter"
        if [ -n "${4:-}" ]; then printf '%s\n' "$4" >"$back.port"; fi
    fi
    rel_scope_owe "$1" "$2"
}

# NAME LEAVE [again]: the same for a way back, which has none itself. What is entered next may
# outlive a power cut: so must this. One that is entered again is no step of its run.
rel_scope_owe() {
    mkdir -p -- "$rel_state/scopes"
    {
        printf '# %s %s%s\n# %s\n' "$rel_run" "$rel_seq" "${3:+ $3}" "${rel_id:--}"
        rel_call rel_state "$rel_state"
        printf 'rel_state=%s rel_umask=%s\n%s\n%s\n' "${rel_call#* }" "$rel_umask" \
            "${rel_functions:-}" "$2"
    } >"$rel_state/scopes/.$1.new"
    mv -f -- "$rel_state/scopes/.$1.new" "$rel_state/scopes/$1"
    rel_flush "$rel_state/scopes/$1" "$rel_state/scopes"
}

# PREFIX NAME: stops every service whose name starts with PREFIX, but NAME.
rel_retire() {
    rel_flat "$2"
    rel_live=$rel_flat
    rel_flat "$1"
    for rel_d in "$rel_state/services/$rel_flat"*; do
        rel_name=${rel_d##*/}
        if [ "$rel_name" != "$rel_live" ] && rel_service_alive "$rel_name"; then
            printf 'stops %s\n' "$rel_name"
            rel_call rel_service_go "$rel_name"
            rel_undo_start "$rel_call"
            rel_service_stop "$rel_name"
        fi
    done
}

# --- the way back ------------------------------------------------------------

# RUN SEQ ID SUFFIX OLDER...: an attempt at the step that goes back later, RUN/SEQ, found what was
# there before both. So nothing is started again because this one found it running, and the step is
# undone also where this one had nothing to change. One that was begun and then done by this one, as
# `!` says, is one deed with it: the same way back is not run twice.
rel_drop_back() {
    local own="$rel_state/undo/$1/$2" run="$1" seq="$2" id="$3" is_older='' older has was is_one when
    shift 4
    for older in "$@"; do
        is_one=
        case $older in
        '!'*) is_one=1 ;;
        esac
        older=$rel_state/undo/${older#!}
        for when in '' .late .start .last; do
            if [ -s "$older$when" ]; then is_older=1; fi
        done
        for when in '' .start .last; do
            if [ -z "$is_one" ] || [ ! -s "$own$when" ] || [ ! -s "$older$when" ]; then continue; fi
            was=$(cat -- "$older$when") && has=$(cat -- "$own$when") || continue
            if [ "$was" = "$has" ]; then rm -f -- "$own$when"; fi
        done
    done
    if [ -z "$is_older" ]; then return 0; fi
    rm -f -- "$own.late"
    if [ ! -s "$own" ] && [ ! -s "$own.start" ] && [ ! -s "$own.last" ]; then
        rel_must_hold
        rel_journal undone "$seq" "$id" "$run" - || return 0
        rel_emit dropped "$seq" "$run"
    fi
}

# RUN SEQ ID: enters again the scope that a step entered, unless it is owed just now.
rel_enter_again() {
    local script="$rel_state/undo/$1/$2.enter" name was="$rel_run"
    IFS= read -r name <"$script" || return 0
    if [ -s "$rel_state/scopes/${name#??}" ]; then return 0; fi
    rel_must_hold
    rel_emit start "$2" "$1"
    rel_run=$1 rel_seq=$2 rel_id=$3
    ( unset rel_nonce; set -eu; umask "$rel_umask"; cd -- "$rel_root"; . "$script" ) </dev/null 2>&1 9>&-
    rel_status=$?
    rel_run=$was
    if [ "$rel_status" -eq 0 ]; then rel_emit 'done' "$2"; else rel_emit failed "$2" "$rel_status"; fi
}

# RUN SEQ ID SUFFIX OLDER...: runs the stored way back of one step, if it has one.
rel_undo_step() {
    rel_script=$rel_state/undo/$1/$2$4
    rel_away=
    if [ -z "$4" ]; then
        rel_drop_back "$@"
        if rel_detached_of "$1" "$2"; then rel_away=$rel_dd; fi
    fi
    if [ ! -s "$rel_script" ] && [ -z "$rel_away" ]; then
        if [ -e "$rel_script.asks" ]; then
            rel_must_hold
            if rel_journal undone "$2" "$3" "$1" asked; then rm -f -- "$rel_script.asks"; fi
        fi
        return 0
    fi
    rel_must_hold
    rel_emit start "$2" "$1"
    if [ -e "$rel_tmp/kept" ]; then rm -f -- "$rel_tmp/kept"; fi
    # What goes on would spoil what is brought back.
    if [ -n "$rel_away" ]; then
        rel_detached_stop "$rel_away"
        rel_detached_settle "$rel_away"
        mkdir -p -- "$rel_state/undo/$1"
        : >>"$rel_script"
    fi
    rel_was_run=$rel_run rel_run=$1 rel_seq=$2
    ( unset rel_nonce; set -eu; umask "$rel_umask"; cd -- "$rel_root"; . "$rel_script" ) </dev/null 2>&1 9>&-
    rel_status=$?
    rel_run=$rel_was_run
    if [ -s "$rel_tmp/kept" ]; then rel_emit kept "$(tr '\n' ' ' <"$rel_tmp/kept")"; fi
    rel_proven=
    if [ "$rel_status" -eq 0 ] && [ -z "$rel_away" ] && rel_is_back "$1" "$2" "$4"; then
        rel_proven=proven
    fi
    # Written down before the script goes: twice is better than not at all.
    if [ "$rel_status" -eq 0 ]; then rel_journal undone "$2" "$3" "$1" - 2>&1 || rel_status=1; fi
    if [ "$rel_status" -eq 0 ]; then
        rm -f -- "$rel_script"
        if [ -z "$4" ] && [ -e "$rel_script.enter" ]; then rm -f -- "$rel_script.enter" "$rel_script.port"; fi
        rel_emit 'done' "$2" $rel_proven
    else
        rel_journal undo-failed "$2" "$3" "$1" "$rel_status"
        rel_emit failed "$2" "$rel_status"
    fi
}
