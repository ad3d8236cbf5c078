# Services: start, stop, restart, and how a rollback restores them.

# NAME [SUM]: stops a service. With SUM, the digest of its script, it is the undo of its first
# start.
rel_service_stop() {
    local rel_service_dir="$rel_state/services/$1" rel_tries=0
    if [ -n "${2:-}" ] && [ -d "$rel_service_dir" ]; then : >"$rel_service_dir/unstarted"; fi
    if ! rel_service_alive "$1"; then
        rm -f -- "$rel_service_dir/pid"
        return 0
    fi
    if [ -s "$rel_service_dir/stop" ]; then
        ( set -eu; . "$rel_service_dir/stop" ) </dev/null || printf 'the stop command of %s failed\n' "$1"
    else
        kill -TERM -"$rel_pid" 2>/dev/null || kill -TERM "$rel_pid" 2>/dev/null || :
    fi
    while rel_service_alive "$1"; do
        rel_tries=$((rel_tries + 1))
        if [ "$rel_tries" -gt 100 ]; then
            printf '%s did not stop within 10 s and is killed\n' "$1"
            kill -KILL -"$rel_pid" 2>/dev/null || kill -KILL "$rel_pid" 2>/dev/null || :
        fi
        if [ "$rel_tries" -gt 120 ]; then return 1; fi
        sleep 0.1
    done
    rm -f -- "$rel_service_dir/pid"
}

# NAME: starts the service's `run` script, in a Unix session of its own and without descriptors of
# this one, so that the connection can end. The script waits until its number is in `pid`, and does
# not run otherwise: nothing could end it.
rel_service_go() {
    local rel_foreign_ok="${rel_foreign_ok:-}" rel_from="$PWD" rel_service_dir="$rel_state/services/$1"
    local rel_log_path rel_is_ready=1 rel_ready rel_within
    # An undo script that is run twice starts one.
    if rel_service_alive "$1"; then return 0; fi
    # A rollback before has undone its first start.
    if [ -e "$rel_service_dir/unstarted" ]; then return 0; fi
    if [ -e "$rel_service_dir/foreign-ok" ]; then rel_foreign_ok=1; fi
    rel_log_path=$(cat -- "$rel_service_dir/log")
    rel_open_log "$rel_log_path" || return 1
    cd -- "$rel_from" || return 1
    rm -f -- "$rel_tmp/go"
    mkfifo -- "$rel_tmp/go"
    exec 7<>"$rel_tmp/go"
    setsid sh -c 'unset REL_RUN_ID; read -r rel_go && exec sh "$1" </dev/null' sh "$rel_service_dir/run" \
        <"$rel_tmp/go" >&6 2>&1 6>&- 7>&- &
    rel_pid=$!
    rel_read_birth "$rel_pid" || :
    printf '%s %s\n' "$rel_pid" "$rel_birth" >"$rel_service_dir/pid.new"
    mv -f -- "$rel_service_dir/pid.new" "$rel_service_dir/pid"
    echo go >&7
    exec 6>&- 7>&-
    # A wrong command ends at once; `ready` checks the rest.
    sleep 0.2
    if rel_service_alive "$1" && [ -s "$rel_service_dir/ready" ]; then
        rel_ready=$(cat "$rel_service_dir/ready")
        rel_within=$(cat "$rel_service_dir/within")
        rel_call rel_service_alive "$1"
        rel_wait "$rel_within" 0.2 "$rel_call_line || exit 120
$rel_ready" || rel_is_ready=
    fi
    if [ -z "$rel_is_ready" ] || ! rel_service_alive "$1"; then
        if rel_service_alive "$1"; then printf '%s is not ready\n' "$1"; else printf '%s has ended\n' "$1"; fi
        if rel_is_readable "$rel_log_path"; then tail -n 20 -- "$rel_log_path" 2>/dev/null; fi
        printf 'more in %s\n' "$rel_log_path"
        return 1
    fi
    rel_monotonic_cs
    printf '%s %s\n' "$rel_clock" "$1" >>"$rel_tmp/started"
}

# NAME LOG RUN STOP READY SECONDS: starts or restarts a service. RUN, STOP and READY are scripts.
# The undo script has the digest of RUN, so that rel_prove_step can compare it.
rel_service() {
    local rel_service_dir="$rel_state/services/$1" rel_sum
    rel_sum=$(printf '%s\n' "$3" | sha256sum) || return 1
    rel_sum=${rel_sum%% *}
    mkdir -p -- "$rel_service_dir"
    rm -f -- "$rel_service_dir/unstarted"
    if rel_service_alive "$1"; then
        rel_service_keep "$1" "$rel_state/undo/$rel_run/$rel_seq.run" || return 1
        rel_call rel_service_back "$1" "$rel_state/undo/$rel_run/$rel_seq.run" "$rel_sum"
        rel_undo_late "$rel_call_line"
        rel_service_stop "$1"
    else
        rel_call rel_service_stop "$1" "$rel_sum"
        rel_undo "$rel_call_line"
    fi
    if [ -n "${rel_foreign_ok:-}" ]; then : >"$rel_service_dir/foreign-ok"; else rm -f -- "$rel_service_dir/foreign-ok"; fi
    printf '%s\n' "$3" >"$rel_service_dir/run"
    printf '%s' "$4" >"$rel_service_dir/stop"
    printf '%s' "$2" >"$rel_service_dir/log"
    printf '%s' "$5" >"$rel_service_dir/ready"
    printf '%s' "$6" >"$rel_service_dir/within"
    printf '%s\n' "${rel_use:-}" >"$rel_service_dir/use"
    rel_service_go "$1"
}

# NAME FILE: copies the scripts of a service: `run` to FILE, the others beside it.
rel_service_keep() {
    local from="$rel_state/services/$1" one
    for one in stop log ready within foreign-ok; do
        if [ -e "$from/$one" ]; then cp -p -- "$from/$one" "$2.$one" || return 1; fi
    done
    cp -p -- "$from/run" "$2"
}

# NAME FILE: starts a service again with these scripts. Older runs have kept only `run`.
rel_service_back() {
    local rel_service_dir="$rel_state/services/$1" rel_one
    # With its present `stop`. It ran before, even if a later attempt at the step was undone.
    rel_service_stop "$1"
    rm -f -- "$rel_service_dir/unstarted"
    if [ -e "$2.log" ]; then
        for rel_one in stop log ready within foreign-ok; do
            if [ -e "$2.$rel_one" ]; then
                cp -p -- "$2.$rel_one" "$rel_service_dir/$rel_one"
            else
                rm -f -- "$rel_service_dir/$rel_one"
            fi || return 1
        done
    fi
    cp -p -- "$2" "$rel_service_dir/run"
    rel_service_go "$1"
}

# START STATUS STOP SECONDS: a service that has a manager, such as systemd. START starts or
# restarts it. Its undo restarts it if it was up, and stops it otherwise.
rel_managed() {
    local rel_code
    set +e
    ( set -eu; eval "$2" ) >/dev/null 2>&1
    rel_code=$?
    # A command that was killed has not answered.
    if [ "$rel_code" -gt 128 ]; then
        printf 'what asks whether it runs was killed\n'
        return "$rel_code"
    fi
    if [ "$rel_code" -eq 0 ]; then
        rel_undo_late "$1"
    elif [ -n "$3" ]; then
        rel_undo "$3"
    fi
    ( set -eu; eval "$1" )
    rel_code=$?
    if [ "$rel_code" -ne 0 ]; then return "$rel_code"; fi
    rel_wait "$4" 0.2 "$2"
}

# PREFIX NAME: stops all services whose names begin with PREFIX, except NAME.
rel_retire() {
    local rel_live rel_service_dir rel_one
    rel_flat "$2"
    rel_live=$rel_flat
    rel_flat "$1"
    for rel_service_dir in "$rel_state/services/$rel_flat"*; do
        rel_one=${rel_service_dir##*/}
        if [ "$rel_one" != "$rel_live" ] && rel_service_alive "$rel_one"; then
            printf 'stops %s\n' "$rel_one"
            rel_call rel_service_go "$rel_one"
            rel_undo_start "$rel_call_line"
            rel_service_stop "$rel_one"
        fi
    done
}

# LOG: opens a log for appending, as descriptor 6.
rel_open_log() {
    rel_enter_dir "$1" || return 1
    if [ -z "$rel_entered_foreign" ]; then
        exec 6>>"./$rel_name"
        return
    fi
    rel_with_parts rel_open_log_there "$1" || return 1
    umask "$rel_umask"
}

# LOG: the same in a foreign directory. Another user can put a link there, or a hard link to a file
# of this user. So the file may have no other names than ../NAME and `pinned`.
rel_open_log_there() {
    local facts
    rel_pin "$1" || return 1
    if [ -z "$rel_found" ]; then
        if ! ( umask "$rel_umask" && : >pinned ) || ! rel_link pinned "$rel_there"; then
            printf '%s could not be made\n' "$1"
            return 1
        fi
        rel_found=pinned
    fi
    facts=$(ls -ldn -- "$rel_found") || return 1
    case $rel_found:$facts in
    pinned:-*' 2 '"$rel_uid "*) exec 6>>pinned ;;
    ../*:-*) exec 6>>"$rel_found" ;;
    *)
        printf '%s is a link, or has another name, or belongs to another user\n' "$1"
        return 1
        ;;
    esac
}
