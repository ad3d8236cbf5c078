# Before each script of the tables: what a session and a program get from rel, and short names.
D=$PWD
rel_nonce=n rel_root=$D rel_state=$D/.rel/e rel_apart=$D/.rel/e@ rel_tmp=$D/tmp rel_salt=salt
rel_run=r rel_who=me rel_purpose=e rel_ttl=6000 rel_period=10 rel_token='' rel_project=''
rel_machine='id key' rel_written='' rel_umask=0022 rel_use=u rel_host_name=h rel_session_id=session
rel_functions='' rel_key=KEY rel_id=u/s rel_seq=1
unset rel_foreign_ok
umask 022
mkdir "$rel_tmp"
rel_whoami

# The state directory, as a session makes it.
state() { mkdir -p "$rel_state/undo/r" "$rel_state/services" "$rel_state/blobs"; }

# TOKEN PID AGE TTL [RUN]: a lease of another session; times in hundredths of a second.
lease() {
    state
    rel_now
    rel_read_birth "$2"
    printf '%s\tann\t%s\tbranch\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "${5:-r0}" "$rel_time" "$2" \
        "$rel_birth" "$4" "$((rel_clock - $3))" "$D/rel.other" >"$rel_state/lease"
}

# Starts a process that holds a lease: sets `holder`.
holder() {
    sleep 100 >"$rel_tmp/holder" 2>&1 &
    holder=$!
}

# N TEXT: a step whose action is TEXT.
step() {
    state
    text=$2
    rel_action() { eval "$text"; }
    ( rel_step "$1" "u/s$1" KEY host; rel_do )
}

# N [SUFFIX [OLDER...]]: rolls a step back.
back() {
    number=$1 suffix=${2:-}
    if [ "$#" -gt 2 ]; then shift 2; else set --; fi
    ( rel_undo_step r "$number" "u/s$number" "$suffix" "$@" )
}

# The journal without its times.
journal() { cut -f2,5- "$rel_state/journal" | tr '\t' ' '; }

# Columns with blanks between them.
blanks() { tr '\t' ' '; }

# The same for a line about a holder, without the age of the lease.
holders() { blanks | sed 's/ [0-9]* -$/ AGE -/'; }

# [SUFFIX]: an undo script of step 1 as it is stored, with `@` for this directory.
stored() {
    state
    sed "s|@|$D|g; s|UID GID|$rel_uid $rel_gid|" >"$rel_state/undo/r/1${1:-}"
}
