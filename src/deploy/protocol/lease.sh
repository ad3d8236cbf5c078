# The lease of an environment on one host: who may change anything here, one at a time.
# Part of the guard; what programs need of it stands in the prelude.
#
# In the state directory:
#   lease       the holder, one line; its first column is the fencing token
#   beat        TOKEN CLOCK: when the holder was last heard of
#   lease.last  the lease that ended last, so that a late one can be told by whom
#   revoked     the token that is just being taken over, and by whom
#   token       the last token that was given; it only grows
#   freeze      a person's hold across runs
#   host        NAME ID KEY: the host's name, its machine-id and its public host key
#   project     the project's name, if its Releasefile says one
#   fence       locked (flock), shared, by whoever acts as the holder, as long as it acts;
#               alone by who takes the lease over, with their number and birth in it
#
# A lease can be had when there is none, when its guard is dead, or when its guard has not
# renewed it for as long as it said. Clocks of two machines are never compared.

# Whether the holder that was read can still act: its guard lives and has renewed in time.
rel_is_live() {
    if rel_is_revoked; then return 1; fi
    rel_birth "$rel_h_pid" && [ "$rel_b" = "$rel_h_born" ] || return 1
    { read -r rel_s rel_beat <"$rel_state/beat"; } 2>/dev/null || rel_s=
    if [ "$rel_s" != "$rel_h_token" ]; then rel_beat=$rel_h_clock; fi
    rel_tick
    [ "$((rel_clock - rel_beat))" -le "$((rel_h_ttl))" ]
}

# Reads a person's hold into rel_f_…; fails when there is none, or none any more.
rel_read_freeze() {
    rel_f_token=
    { IFS=$rel_tab read -r rel_f_token rel_f_who rel_f_reason rel_f_since rel_f_until \
        <"$rel_state/freeze"; } 2>/dev/null || :
    if [ -z "$rel_f_token" ]; then return 1; fi
    if [ "$rel_f_until" = - ]; then return 0; fi
    rel_now
    [ "$rel_time" -lt "$rel_f_until" ]
}

rel_is_frozen() { rel_read_freeze && [ "$rel_f_who" != "$rel_who" ]; }

# The holder that was read, as one line: kind, token, who, run, purpose, age, -.
rel_print_lease() {
    rel_now
    printf 'run\t%s\t%s\t%s\t%s\t%s\t-\n' "$rel_h_token" "$rel_h_who" "$rel_h_run" \
        "$rel_h_purpose" "$((rel_time - rel_h_since))"
}

# A person's hold that was read: kind, token, who, -, reason, age and rest in seconds.
rel_print_freeze() {
    rel_now
    rel_rest=-
    if [ "$rel_f_until" != - ]; then rel_rest=$((rel_f_until - rel_time)); fi
    printf 'freeze\t%s\t%s\t-\t%s\t%s\t%s\n' "$rel_f_token" "$rel_f_who" "$rel_f_reason" \
        "$((rel_time - rel_f_since))" "$rel_rest"
}

# Says who holds this environment: a line for a person, one for a run.
rel_held() {
    if rel_read_freeze; then rel_print_freeze; fi
    if rel_read_lease "$rel_state/lease" && rel_is_live; then rel_print_lease; fi
}

# Writes the lease anew under the next token. Under the fence, alone.
rel_grant() {
    rel_last=0
    { read -r rel_last <"$rel_state/token"; } 2>/dev/null
    # A file torn by a power cut must not make numbers come back.
    for rel_n in "${rel_last:-0}" "${rel_h_token:-0}" "${rel_f_token:-0}"; do
        case $rel_n in
        '' | *[!0-9]*) ;;
        *) if [ "$rel_n" -gt "${rel_next:-0}" ]; then rel_next=$rel_n; fi ;;
        esac
    done
    rel_next=$((${rel_next:-0} + 1))
    rel_now
    rel_birth "$$"
    if printf '%s\n' "$rel_next" >"$rel_state/token.new" &&
        mv -f -- "$rel_state/token.new" "$rel_state/token" &&
        printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$rel_next" "$rel_who" "$rel_run" \
            "$rel_purpose" "$rel_time" "$$" "$rel_b" "$rel_ttl" "$rel_clock" \
            "$rel_tmp" >"$rel_state/lease.new" &&
        printf '%s\n' "$rel_next" >"$rel_tmp/token"; then
        if [ -e "$rel_state/beat" ]; then rm -f -- "$rel_state/beat"; fi
        mv -f -- "$rel_state/lease.new" "$rel_state/lease" && rel_token=$rel_next
    fi 2>/dev/null
}

# From here on the lease that was read is nobody's: what its program does not get done,
# its guard must not take for a failed step and go back from.
rel_revoke() {
    if rel_is_revoked; then return; fi
    rel_now
    printf '%s\t%s\t%s\t%s\t%s\n' "$rel_h_token" "$rel_who" "$rel_run" "$rel_purpose" \
        "$rel_time" >"$rel_state/revoked.$$" && mv -f -- "$rel_state/revoked.$$" "$rel_state/revoked"
}

# Ends what a lease that was read left at work. TERM first, as when a line is cut.
rel_end_work() {
    rel_revoke
    if [ -z "$rel_h_tmp" ]; then return 0; fi
    rm -f -- "$rel_h_tmp"/secret.*
    { read -r rel_pid rel_born <"$rel_h_tmp/work"; } 2>/dev/null || return 0
    if rel_is_session "$rel_pid" "$rel_born" "$rel_h_run"; then rel_end_group "$rel_pid"; fi
    rm -f -- "$rel_h_tmp/work"
}

# PID BIRTH: kills a guard with all that works for it.
rel_end_guard() {
    rel_birth "$1" || return 0
    if [ "$rel_b" = "$2" ] && [ "$1" != "$$" ]; then
        kill -KILL -"$1" 2>/dev/null || kill -KILL "$1" 2>/dev/null
    fi
    return 0
}

# Whether the lease can not be had now. With rel_forced a living holder does not count, unless it is
# of this very run.
rel_is_held() {
    rel_read_lease "$rel_state/lease" || return 1
    if ! rel_is_live; then return 1; fi
    [ -z "${rel_forced:-}" ] || [ "$rel_h_run" = "$rel_run" ]
}

# Tries once to take a lease that can be had. Who still acts under it is ended first: a
# program holds the fence while it acts, and a guard that does is ended after half a second.
rel_grab() {
    {
        if flock -n 9; then
            rel_birth "$$"
            printf '%s %s\n' "$$" "$rel_b" >"$rel_state/fence"
            if ! rel_is_held && { [ "$1" != run ] || ! rel_is_frozen; }; then
                if [ -n "$rel_h_token" ]; then
                    rel_left=$rel_h_who
                    rel_end_work
                    mv -f -- "$rel_state/lease" "$rel_state/lease.last" 2>/dev/null
                fi
                rel_grant
                if [ -z "${rel_token:-}" ]; then rel_why='nothing can be written there'; fi
            fi
        else
            if [ -n "$rel_h_token" ]; then
                rel_end_work
                if [ "$rel_tries" -ge 5 ]; then rel_end_guard "$rel_h_pid" "$rel_h_born"; fi
            fi
            # Somebody who is at the taking over, and does not come to an end with it.
            if [ "$rel_tries" -ge 60 ] && read -r rel_pid rel_born <"$rel_state/fence"; then
                rel_end_guard "$rel_pid" "$rel_born"
            fi
            if [ "$rel_tries" -ge 150 ]; then rel_why='something there holds its fence and can not be ended'; fi
            rel_tries=$((rel_tries + 1))
            sleep 0.1
        fi
    } 9>>"$rel_state/fence"
}

# NAME...: makes the state directory, with these in it.
rel_make_state() {
    local name missing=0
    for name in "$@"; do set -- "$@" "$rel_state/$name" && shift; done
    for name in "$rel_root/.rel" "$rel_state" "$@"; do
        if [ ! -d "$name" ]; then missing=$((missing + 1)) && set -- "$@" "$name"; fi
    done
    shift "$(($# - missing))"
    # Of two runs at once one is first.
    if [ "$missing" -gt 0 ]; then mkdir -m 700 -- "$@" 2>/dev/null; fi
    [ -d "$rel_state/undo" ] && [ -d "$rel_state/services" ]
}

# Writes down whose state this is: the project, the name of the host, and the machine that it is.
# Fails where another project was first.
rel_sign_state() {
    if ! rel_is_ours; then return 1; fi
    if [ -n "$rel_project" ] && [ -z "$rel_of_project" ]; then
        { printf '%s\n' "$rel_project" >"$rel_state/project.new" &&
            mv -f -- "$rel_state/project.new" "$rel_state/project"; } 2>/dev/null
    fi
    if [ -z "$rel_name" ] || [ "$rel_written" = "$rel_name $rel_machine" ]; then return 0; fi
    rel_written="$rel_name $rel_machine"
    { printf '%s\n' "$rel_written" >"$rel_state/host.new" &&
        mv -f -- "$rel_state/host.new" "$rel_state/host"; } 2>/dev/null
    return 0
}

# SIZE [MODE]: takes the lease; says whether the journal is still as long as when it was
# read. Modes: run (minds a freeze), any (does not), break (minds nobody).
rel_lock() {
    rel_mode=${2:-run}
    # What is not there yet can be made by somebody else meanwhile; and what is made in a directory
    # with a default access list can be open to others, unless its mode is given.
    rel_made=
    if [ ! -d "$rel_root" ]; then
        rel_made=1
        # Web servers and other users read what lies there: only `.rel` is private.
        ( umask "$rel_umask" && mkdir -p -- "$rel_root" ) 2>/dev/null
    elif [ ! -d "$rel_root/.rel" ] && { [ "$rel_uid" != 0 ] || [ -k "$rel_root" ]; }; then
        rel_made=1
    fi
    if ! rel_make_state undo blobs bases services; then
        rel_emit refused 'it can not be made'
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
    rel_waits=0 rel_tries=0 rel_why=
    if [ -z "${rel_token:-}" ]; then
        rel_whose= rel_left= rel_forced= rel_f_token= rel_h_token=
    fi
    if [ -z "${rel_token:-}" ] && [ "$rel_mode" = break ]; then
        rel_forced=1
        rel_purpose="rel unlock $rel_purpose --break"
        if rel_read_lease "$rel_state/lease" && rel_is_live; then rel_whose=$rel_h_who; fi
    fi
    while [ -z "${rel_token:-}" ]; do
        if [ "$rel_mode" = run ] && rel_is_frozen; then
            rel_emit locked "$(rel_print_freeze)"
            return
        fi
        if rel_is_held; then
            # A guard whose connection was cut needs some seconds to clean up.
            rel_waits=$((rel_waits + 1))
            if [ "$rel_waits" -gt 40 ]; then
                # The same run, perhaps by another name of this host: rel knows its rooms.
                if [ "$rel_h_run" = "$rel_run" ]; then
                    rel_emit twin "${rel_h_tmp##*/rel.}$rel_tab$(rel_print_lease)"
                else
                    rel_emit locked "$(rel_print_lease)"
                fi
                return
            fi
            sleep 0.1
            continue
        fi
        rel_grab "$rel_mode"
        if [ -n "$rel_why" ]; then
            rel_emit refused "$rel_why"
            return
        fi
    done
    if ! { true >>"$rel_state/journal"; } 2>/dev/null; then
        rel_emit refused 'the journal can not be written'
        return
    fi
    if ! rel_sign_state; then
        rel_emit refused "it has become that of project \`$rel_of_project\` since this run looked"
        return
    fi
    if [ -s "$rel_state/private" ]; then rel_as_holder rel_sweep; fi
    # What a former run could not leave is left before anything else is done.
    rel_owed=
    if rel_is_owing; then rel_as_holder rel_scopes_leave undone; fi
    if [ -n "$rel_owed" ]; then
        rel_tell_owed
        return
    fi
    rel_journal_size
    # A line torn by a crash must not swallow the next one, nor one that ends with a NUL.
    if [ -s "$rel_state/journal" ]; then
        rel_t=$(tail -c 1 "$rel_state/journal"; printf .)
        if [ "$rel_t" != "$rel_newline." ]; then printf '\n' >>"$rel_state/journal"; fi
    fi
    if [ -n "$rel_left" ] && [ -z "$rel_whose" ]; then rel_journal taken-over - - "$rel_left" -; fi
    rel_left=
    if [ "$rel_size" -ne "$1" ]; then
        rel_emit moved "$rel_token"
        return
    fi
    if rel_read_freeze; then rel_emit ready "$rel_token" "$rel_f_reason"; else rel_emit ready "$rel_token"; fi
}

rel_tell_owed() { rel_emit owed "$rel_owed$rel_tab$rel_state/scopes/$rel_owed$rel_tab$rel_why"; }

# Sets rel_size: how many bytes were ever written to the journal, at most.
rel_journal_size() {
    if [ ! -s "$rel_state/journal" ]; then
        rel_size=0
        return
    fi
    rel_size=$(wc -c <"$rel_state/journal") || rel_size=-1
    read -r rel_line <"$rel_state/journal" || rel_line=
    case $rel_line in
    "1${rel_tab}shortened$rel_tab"*)
        rel_line=${rel_line#*"$rel_tab-$rel_tab-$rel_tab"}
        rel_size=$((rel_size + ${rel_line%%"$rel_tab"*}))
        ;;
    *) rel_size=$((rel_size)) ;;
    esac
}

# SIZE COUNT SCRIPT: leaves of the journal what SCRIPT prints, the first COUNT lines of which are
# of older runs. Sizes go on from SIZE: another journal has another one. The whole of it stays, in
# the order of sizes; where one of the two can not be written it stays as it is. The copy gives
# the new one its mode and owner.
rel_shorten() {
    rel_new=$rel_state/journal.new
    rel_name=$(printf '%020d' "$1")-$rel_run
    rel_now
    mkdir -p -- "$rel_state/journals" && cp -p -- "$rel_state/journal" "$rel_new" && {
        printf '1\tshortened\t%s\t%s\t-\t-\t%s\t%s\t%s\n' "$rel_time" "$rel_run" "$1" "$rel_who" "$2" &&
            sed -n "$3" "$rel_state/journal"
    } >"$rel_new" && rel_flush "$rel_new" &&
        ln -f -- "$rel_state/journal" "$rel_state/journals/$rel_name" &&
        mv -f -- "$rel_new" "$rel_state/journal" || rm -f -- "$rel_new"
} 2>/dev/null

# Says that this guard is not the holder any more, and who is.
rel_tell_fenced() {
    if rel_read_lease "$rel_state/lease" && [ "$rel_h_token" != "$rel_token" ]; then
        :
    elif rel_read_lease "$rel_state/revoked" && [ "$rel_h_token" = "$rel_token" ]; then
        :
    elif ! rel_read_lease "$rel_state/lease.last" || [ "$rel_h_token" -le "$rel_token" ]; then
        rel_emit fenced
        return
    fi
    rel_emit fenced "$(rel_print_lease)"
}

# COMMAND...: does it as the holder, so that nobody else can be it meanwhile; fails where
# this guard is not the holder any more.
rel_as_holder() {
    if [ -z "${rel_token:-}" ]; then return 1; fi
    {
        if rel_stand && rel_holds; then "$@"; else false; fi
    } 9>>"$rel_state/fence"
}

# FUNCTION: does it as the holder, and says so. What it could not write down it has not done.
rel_act() {
    rel_unwritten=
    if ! rel_as_holder "$1" </dev/null; then
        rel_tell_undone
    elif [ -n "$rel_unwritten" ]; then
        rel_emit refused 'the journal can not be written'
    else
        rel_emit acted
    fi
}

# Says why something was not done: somebody else is the holder, or it can not be.
rel_tell_undone() {
    if [ -n "${rel_token:-}" ] && rel_holds; then
        rel_emit refused 'nothing can be written there'
    else
        rel_tell_fenced
    fi
}

rel_renew() {
    rel_tick
    printf '%s %s\n' "$rel_token" "$rel_clock" >"$rel_state/beat.new" &&
        mv -f -- "$rel_state/beat.new" "$rel_state/beat"
}

rel_give_back() {
    # One that was killed is asked again.
    rel_tries=0
    until mv -f -- "$rel_state/lease" "$rel_state/lease.last" || [ "$?" -lt 128 ] || [ "$rel_tries" -ge 9 ]; do
        rel_tries=$((rel_tries + 1))
    done
    if [ -e "$rel_state/beat" ]; then rm -f -- "$rel_state/beat"; fi
}

# REASON SECONDS: holds the environment for a person when this guard has left.
rel_freeze() {
    rel_now
    rel_until=-
    if [ "$2" != - ]; then rel_until=$((rel_time + $2)); fi
    if rel_as_holder rel_write_freeze "$1"; then rel_emit frozen; else rel_tell_undone; fi
}

rel_write_freeze() {
    printf '%s\t%s\t%s\t%s\t%s\n' "$rel_token" "$rel_who" "$1" "$rel_time" "$rel_until" \
        >"$rel_state/freeze.new" &&
        mv -f -- "$rel_state/freeze.new" "$rel_state/freeze" &&
        rel_journal locked - - "$rel_token" "$1"
}

# [REASON]: ends a person's hold; somebody else's only with a reason.
rel_unfreeze() {
    rel_read_freeze || rel_f_who=
    if [ -n "$rel_f_who" ] && [ "$rel_f_who" != "$rel_who" ] && [ -z "$1" ]; then
        rel_emit locked "$(rel_print_freeze)"
    elif rel_as_holder rel_end_freeze "$1"; then
        rel_emit unlocked "$rel_f_who$rel_tab$rel_whose"
    else
        rel_tell_undone
    fi
}

rel_end_freeze() {
    if [ -n "$1" ] && [ -n "$rel_whose" ]; then
        rel_journal lock-broken - - "$rel_whose" "$1" || return 1
    fi
    if [ -z "$rel_f_who" ]; then return 0; fi
    if [ "$rel_f_who" = "$rel_who" ]; then
        rel_journal unlocked - - "$rel_f_token" -
    else
        rel_journal lock-broken - - "$rel_f_who" "$1"
    fi && rm -f -- "$rel_state/freeze"
}
