# Functions of a session that are seldom called. They are sent with the call, and not with each
# session.

# NAME...: leaves these scopes before the run ends, the last one first.
rel_leave_scopes() {
    if ! rel_as_holder rel_scopes_leave_these "$@" </dev/null; then
        rel_report_undone
    elif [ -n "$rel_owed" ]; then
        rel_report_owed
    else
        rel_emit left
    fi
}

# NAME...: leaves them; sets rel_owed to one that could not be left.
rel_scopes_leave_these() {
    local rel_count rel_scope_name rel_file
    rel_owed=
    while [ "$#" -gt 0 ]; do
        rel_count=$#
        for rel_scope_name in "$@"; do :; done
        rel_file=$rel_state/scopes/$rel_scope_name
        if [ -s "$rel_file" ]; then
            rel_read_scope "$rel_file"
            rel_leave_scope left "$rel_file" || return 0
        fi
        # All but the last.
        while [ "$rel_count" -gt 1 ]; do
            set -- "$@" "$1"
            shift
            rel_count=$((rel_count - 1))
        done
        shift
    done
}

# FILE: abandons a scope that cannot be left. Its script stays, for a person.
rel_scope_abandon() {
    mkdir -p -- "$rel_state/abandoned" &&
        rel_journal abandoned "$rel_scope_seq" "$rel_scope_id" "$rel_abandons" "$rel_reason" &&
        mv -f -- "$1" "$rel_state/abandoned/$rel_abandons-$rel_scope_run" &&
        rel_abandoned=$rel_state/abandoned/$rel_abandons-$rel_scope_run
}

# RUN SEQ: adds the undo scripts of a step to rel_has, a column for each: KIND RUN SEQ [PORT]. Each
# step makes the directory of its run; `gone` says that it does not exist any more.
rel_has_back() {
    local file="$rel_state/undo/$1/$2" kind port
    if [ ! -d "$rel_state/undo/$1" ]; then
        rel_has="$rel_has${rel_tab}gone $1 $2"
        return
    fi
    for kind in late start last enter; do
        if [ -s "$file.$kind" ]; then rel_has="$rel_has$rel_tab$kind $1 $2"; fi
    done
    if [ -s "$file.port" ]; then
        IFS= read -r port <"$file.port" && rel_has="$rel_has${rel_tab}port $1 $2 $port"
    elif [ -s "$file" ]; then
        rel_has="$rel_has${rel_tab}own $1 $2"
    fi
}

# Reports the file of the abandoned scope, if one was abandoned.
rel_report_abandoned() { rel_emit abandoned "${rel_abandoned:-}"; }

# Reports whether the services that were started in this session, and not stopped, still run after a
# second. A process whose port is in use often ends only then.
rel_report_started() {
    local ended='' since='' name='' log said=''
    if [ -s "$rel_tmp/started" ]; then
        while read -r since name; do
            rel_monotonic_cs
            if [ "$((rel_clock - since))" -lt 100 ]; then sleep 1; fi
            if [ -e "$rel_state/services/$name/pid" ] && ! rel_service_alive "$name"; then
                ended=$name
            fi
        done <"$rel_tmp/started"
    fi
    if [ -z "$ended" ]; then
        rel_emit started
        return
    fi
    log=$(cat -- "$rel_state/services/$ended/log")
    if rel_is_readable "$log"; then said=$(tail -n 5 -- "$log" 2>/dev/null | tr '\t\n' '  '); fi
    rel_emit ended "$ended$rel_tab$log$rel_tab$said"
}
