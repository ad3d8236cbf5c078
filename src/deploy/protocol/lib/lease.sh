# The lease of an environment on one host: only its holder may change anything there.
#
# Functions of the session; fence.sh has those that programs need too. In the state directory:
#   lease       the holder, one line; the first column is the fencing token
#   beat        TOKEN CLOCK: the last renewal
#   lease.last  the lease that ended last: it tells a late session who took over
#   revoked     the token that is being taken over, and who takes over
#   token       the last token that was granted; it only grows
#   freeze      a person's lock across runs (freeze.sh)
#   host        NAME ID KEY: the host's name, its machine-id and its public host key
#   project     the project's name, if its Releasefile has one
#   fence       locked (flock): shared by each process that acts for the holder, while it acts;
#               exclusively by a session that takes the lease over, whose number and birth it has
#
# A lease is free when there is none, when the process of its session has ended, or when it was not
# renewed for the time that it says. Clocks of two machines are never compared.

# Whether the holder that was read can still act: its session lives, and has renewed in time.
rel_is_live() {
    local token='' beat=''
    if rel_is_revoked; then return 1; fi
    rel_read_birth "$rel_lease_pid" && [ "$rel_birth" = "$rel_lease_born" ] || return 1
    { read -r token beat <"$rel_state/beat"; } 2>/dev/null || token=
    if [ "$token" != "$rel_lease_token" ]; then beat=$rel_lease_clock; fi
    rel_monotonic_cs
    [ "$((rel_clock - beat))" -le "$((rel_lease_ttl))" ]
}

# Prints the holder that was read: kind, token, who, run, purpose, age, -.
rel_print_lease() {
    rel_now
    printf 'run\t%s\t%s\t%s\t%s\t%s\t-\n' "$rel_lease_token" "$rel_lease_who" "$rel_lease_run" \
        "$rel_lease_purpose" "$((rel_time - rel_lease_since))"
}

# Prints who has locked this environment: a line for a freeze, one for a lease.
rel_print_holder() {
    if rel_read_freeze; then rel_print_freeze; fi
    if rel_read_lease "$rel_state/lease" && rel_is_live; then rel_print_lease; fi
}

# Writes the lease under the next token. Called with the exclusive lock of the fence.
rel_grant() {
    local last=0 next=0 one
    { read -r last <"$rel_state/token"; } 2>/dev/null
    # A file torn by a power cut must not make tokens repeat.
    for one in "${last:-0}" "${rel_lease_token:-0}" "${rel_freeze_token:-0}"; do
        case $one in
        '' | *[!0-9]*) ;;
        *) if [ "$one" -gt "$next" ]; then next=$one; fi ;;
        esac
    done
    next=$((next + 1))
    rel_now
    rel_read_birth "$$"
    if printf '%s\n' "$next" >"$rel_state/token.new" &&
        mv -f -- "$rel_state/token.new" "$rel_state/token" &&
        printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$next" "$rel_who" "$rel_run" \
            "$rel_purpose" "$rel_time" "$$" "$rel_birth" "$rel_ttl" "$rel_clock" \
            "$rel_tmp" >"$rel_state/lease.new" &&
        printf '%s\n' "$next" >"$rel_tmp/token"; then
        if [ -e "$rel_state/beat" ]; then rm -f -- "$rel_state/beat"; fi
        mv -f -- "$rel_state/lease.new" "$rel_state/lease" && rel_token=$next
    fi 2>/dev/null
}

# Revokes the lease that was read. From here on its session must not take an interrupted step for a
# failed one, and roll back.
rel_revoke() {
    if rel_is_revoked; then return; fi
    rel_now
    printf '%s\t%s\t%s\t%s\t%s\n' "$rel_lease_token" "$rel_who" "$rel_run" "$rel_purpose" \
        "$rel_time" >"$rel_state/revoked.$$" && mv -f -- "$rel_state/revoked.$$" "$rel_state/revoked"
}

# Ends the program of the holder that was read. TERM first, as after a lost connection.
rel_end_work() {
    local pid='' born=''
    rel_revoke
    if [ -z "$rel_lease_tmp" ]; then return 0; fi
    rm -f -- "$rel_lease_tmp"/secret.*
    { read -r pid born <"$rel_lease_tmp/work"; } 2>/dev/null || return 0
    if rel_is_session "$pid" "$born" "$rel_lease_run"; then rel_end_group "$pid"; fi
    rm -f -- "$rel_lease_tmp/work"
}

# PID BIRTH: kills a session and its process group.
rel_kill_session() {
    rel_read_birth "$1" || return 0
    if [ "$rel_birth" = "$2" ] && [ "$1" != "$$" ]; then
        kill -KILL -"$1" 2>/dev/null || kill -KILL "$1" 2>/dev/null
    fi
    return 0
}

# Whether the lease is not free now. With rel_forced a living holder does not count, unless it is of
# the same run.
rel_is_held() {
    rel_read_lease "$rel_state/lease" || return 1
    if ! rel_is_live; then return 1; fi
    [ -z "${rel_forced:-}" ] || [ "$rel_lease_run" = "$rel_run" ]
}

# MODE: tries once to take a lease that is free. Processes that still act under it are ended first:
# a program, which has the fence while it acts; after half a second also the session.
rel_try_lease() {
    local pid='' born=''
    {
        if flock -n 9; then
            rel_read_birth "$$"
            printf '%s %s\n' "$$" "$rel_birth" >"$rel_state/fence"
            if ! rel_is_held && { [ "$1" != run ] || ! rel_is_frozen; }; then
                if [ -n "$rel_lease_token" ]; then
                    rel_taken_from=$rel_lease_who
                    rel_end_work
                    mv -f -- "$rel_state/lease" "$rel_state/lease.last" 2>/dev/null
                fi
                rel_grant
                if [ -z "${rel_token:-}" ]; then rel_why='nothing can be written there'; fi
            fi
        else
            if [ -n "$rel_lease_token" ]; then
                rel_end_work
                if [ "$rel_tries" -ge 5 ]; then rel_kill_session "$rel_lease_pid" "$rel_lease_born"; fi
            fi
            # A session that takes over, and does not finish.
            if [ "$rel_tries" -ge 60 ] && read -r pid born <"$rel_state/fence"; then
                rel_kill_session "$pid" "$born"
            fi
            if [ "$rel_tries" -ge 150 ]; then rel_why='something there holds its fence and cannot be ended'; fi
            rel_tries=$((rel_tries + 1))
            sleep 0.1
        fi
    } 9>>"$rel_state/fence"
}

# SIZE [MODE]: takes the lease; reports whether the journal still has the size that it had when it
# was read. Modes: run (respects a freeze), any (ignores a freeze), break (ignores a living holder
# too).
rel_lock() {
    local rel_mode="${2:-run}" rel_made='' rel_waits=0 rel_tries=0 rel_last
    # Another user can make a missing directory meanwhile; and in a directory with a default access
    # list a new one can be accessible to others, unless its mode is given.
    if [ ! -d "$rel_root" ]; then
        rel_made=1
        # Web servers and other users read files there: only `.rel` is private.
        ( umask "$rel_umask" && mkdir -p -- "$rel_root" ) 2>/dev/null
    elif [ ! -d "$rel_root/.rel" ] && { [ "$rel_uid" != 0 ] || [ -k "$rel_root" ]; }; then
        rel_made=1
    fi
    if ! rel_make_state undo blobs bases services; then
        rel_emit refused 'it cannot be made'
        return
    fi
    if [ -n "$rel_made" ] && ! rel_check_state; then
        rel_emit untrusted "$rel_why"
        return
    fi
    if ! { true >>"$rel_state/fence"; } 2>/dev/null; then
        rel_emit refused 'nothing can be written there'
        return
    fi
    rel_why=
    if [ -z "${rel_token:-}" ]; then
        rel_broken_holder='' rel_taken_from='' rel_forced='' rel_freeze_token='' rel_lease_token=''
    fi
    if [ -z "${rel_token:-}" ] && [ "$rel_mode" = break ]; then
        rel_forced=1
        rel_purpose="rel unlock $rel_purpose --break"
        if rel_read_lease "$rel_state/lease" && rel_is_live; then rel_broken_holder=$rel_lease_who; fi
    fi
    while [ -z "${rel_token:-}" ]; do
        if [ "$rel_mode" = run ] && rel_is_frozen; then
            rel_emit locked "$(rel_print_freeze)"
            return
        fi
        if rel_is_held; then
            # A session that lost its connection needs some seconds to clean up.
            rel_waits=$((rel_waits + 1))
            if [ "$rel_waits" -gt 40 ]; then
                # The same run, perhaps under another name of this host: rel knows its sessions.
                if [ "$rel_lease_run" = "$rel_run" ]; then
                    rel_emit twin "${rel_lease_tmp##*/rel.}$rel_tab$(rel_print_lease)"
                else
                    rel_emit locked "$(rel_print_lease)"
                fi
                return
            fi
            sleep 0.1
            continue
        fi
        rel_try_lease "$rel_mode"
        if [ -n "$rel_why" ]; then
            rel_emit refused "$rel_why"
            return
        fi
    done
    if ! { true >>"$rel_state/journal"; } 2>/dev/null; then
        rel_emit refused 'the journal cannot be written'
        return
    fi
    if ! rel_sign_state; then
        rel_emit refused "it has become that of project \`$rel_of_project\` since this run looked"
        return
    fi
    if [ -s "$rel_state/private" ]; then rel_as_holder rel_sweep; fi
    # Scopes that a former run could not leave are left first.
    rel_owed=
    if rel_is_owing; then rel_as_holder rel_scopes_leave undone; fi
    if [ -n "$rel_owed" ]; then
        rel_report_owed
        return
    fi
    rel_journal_size
    # A line that a crash has torn, or that ends with a NUL, must not swallow the next one.
    if [ -s "$rel_state/journal" ]; then
        rel_last=$(tail -c 1 "$rel_state/journal"; printf .)
        if [ "$rel_last" != "$rel_newline." ]; then printf '\n' >>"$rel_state/journal"; fi
    fi
    if [ -n "$rel_taken_from" ] && [ -z "$rel_broken_holder" ]; then rel_journal taken-over - - "$rel_taken_from" -; fi
    rel_taken_from=
    if [ "$rel_size" -ne "$1" ]; then
        rel_emit moved "$rel_token"
        return
    fi
    if rel_read_freeze; then rel_emit ready "$rel_token" "$rel_freeze_reason"; else rel_emit ready "$rel_token"; fi
}

# Reports that this session does not hold the lease any more, and who does.
rel_report_fenced() {
    if rel_read_lease "$rel_state/lease" && [ "$rel_lease_token" != "$rel_token" ]; then
        :
    elif rel_read_lease "$rel_state/revoked" && [ "$rel_lease_token" = "$rel_token" ]; then
        :
    elif ! rel_read_lease "$rel_state/lease.last" || [ "$rel_lease_token" -le "$rel_token" ]; then
        rel_emit fenced
        return
    fi
    rel_emit fenced "$(rel_print_lease)"
}

# COMMAND...: runs it with the shared lock of the fence, so that no other session takes the lease
# over meanwhile. Fails if this session does not hold the lease any more.
rel_as_holder() {
    if [ -z "${rel_token:-}" ]; then return 1; fi
    {
        if rel_lock_fence && rel_holds; then "$@"; else false; fi
    } 9>>"$rel_state/fence"
}

# FUNCTION: runs it as rel_as_holder does, and reports the result. It counts as not done if the
# journal could not be written.
rel_call_locked() {
    rel_unwritten=
    if ! rel_as_holder "$1" </dev/null; then
        rel_report_undone
    elif [ -n "$rel_unwritten" ]; then
        rel_emit refused 'the journal cannot be written'
    else
        rel_emit acted
    fi
}

# Reports why something was not done: another session holds the lease, or nothing can be written.
rel_report_undone() {
    if [ -n "${rel_token:-}" ] && rel_holds; then
        rel_emit refused 'nothing can be written there'
    else
        rel_report_fenced
    fi
}

rel_renew() {
    rel_monotonic_cs
    printf '%s %s\n' "$rel_token" "$rel_clock" >"$rel_state/beat.new" &&
        mv -f -- "$rel_state/beat.new" "$rel_state/beat"
}

rel_give_back() {
    local tries=0
    # Again if `mv` was killed.
    until mv -f -- "$rel_state/lease" "$rel_state/lease.last" || [ "$?" -lt 128 ] || [ "$tries" -ge 9 ]; do
        tries=$((tries + 1))
    done
    if [ -e "$rel_state/beat" ]; then rm -f -- "$rel_state/beat"; fi
}
