# What a guard is seldom called for: sent with the call, so that no other exchange has to carry it.

# NAME...: leaves scopes before the run ends, the last one first.
rel_leave_scopes() {
    if ! rel_as_holder rel_scopes_leave_these "$@" </dev/null; then
        rel_tell_undone
    elif [ -n "$rel_owed" ]; then
        rel_tell_owed
    else
        rel_emit left
    fi
}

# NAME...: leaves these, the last one first. rel_owed is one that could not be left.
rel_scopes_leave_these() {
    rel_owed=
    while [ "$#" -gt 0 ]; do
        rel_i=$#
        for rel_name in "$@"; do :; done
        rel_f=$rel_state/scopes/$rel_name
        if [ -s "$rel_f" ]; then
            rel_read_scope "$rel_f"
            rel_leave_scope left "$rel_f" || return 0
        fi
        # All but the last.
        while [ "$rel_i" -gt 1 ]; do
            set -- "$@" "$1"
            shift
            rel_i=$((rel_i - 1))
        done
        shift
    done
}

# FILE: gives a scope up that can not be left. Its way out stays, for a person.
rel_scope_abandon() {
    mkdir -p -- "$rel_state/abandoned" &&
        rel_journal abandoned "$rel_2" "$rel_3" "$rel_abandons" "$rel_reason" &&
        mv -f -- "$1" "$rel_state/abandoned/$rel_abandons-$rel_1" &&
        rel_abandoned=$rel_state/abandoned/$rel_abandons-$rel_1
}

# RUN SEQ: adds what a step has left for its way back to rel_has, a column each: KIND RUN SEQ [PORT].
# Each step makes the directory of its run: `gone` says that somebody has removed it.
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

# Says what became of the scope that was to be given up.
rel_tell_abandoned() { rel_emit abandoned "${rel_abandoned:-}"; }

# Says whether what was started in this session, and not stopped, still runs a second later. A
# program that finds its port taken often ends only then.
rel_tell_started() {
    rel_ended=
    if [ -s "$rel_tmp/started" ]; then
        while read -r rel_since rel_name; do
            rel_tick
            if [ "$((rel_clock - rel_since))" -lt 100 ]; then sleep 1; fi
            if [ -e "$rel_state/services/$rel_name/pid" ] && ! rel_service_alive "$rel_name"; then
                rel_ended=$rel_name
            fi
        done <"$rel_tmp/started"
    fi
    if [ -z "$rel_ended" ]; then
        rel_emit started
        return
    fi
    rel_l=$(cat -- "$rel_state/services/$rel_ended/log")
    rel_said=
    if rel_is_readable "$rel_l"; then rel_said=$(tail -n 5 -- "$rel_l" 2>/dev/null | tr '\t\n' '  '); fi
    rel_emit ended "$rel_ended$rel_tab$rel_l$rel_tab$rel_said"
}
