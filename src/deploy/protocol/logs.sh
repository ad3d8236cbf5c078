# --- logs: what the environment keeps on this host, a tag before each line ----

# NAME PATH: the end of one log and, where it is followed, what comes after that, through
# rotation. Nothing between the two is lost or told twice.
rel_log() {
    case $rel_known in
    *"<$2>"*) return 0 ;;
    esac
    rel_known="$rel_known<$2>"
    rel_tag=$((rel_tag + 1))
    if ! rel_is_readable "$2"; then
        rel_emit source "$rel_tag" 0 "$1"
        echo "$rel_tag not read: it is no file, or a link that another user can change"
        return 0
    fi
    rel_size=$(wc -c <"$2") || rel_size=0
    rel_emit source "$rel_tag" "$(date -r "$2" +%s || echo 0)" "$1"
    # A last line may have no end.
    if [ "$((rel_size))" -gt 0 ]; then { rel_log_old "$2" | rel_log_tagged; echo; }; fi
    if [ -n "$rel_follow" ]; then
        { tail -c "+$((rel_size + 1))" -F -- "$2" | rel_log_tagged; } </dev/null &
    fi
} 2>/dev/null

# PATH: its last lines, as far as it was long when that was asked; a mebibyte at most.
rel_log_old() {
    if [ "$((rel_size))" -gt 1048576 ]; then
        tail -c "+$((rel_size - 1048575))" -- "$1" | head -c 1048576 | sed 1d
    else
        head -c "$((rel_size))" -- "$1"
    fi | tail -n "$rel_most"
}

# Each line as soon as it is there, in one piece.
rel_log_tagged() {
    if [ -n "$rel_unbuffered" ]; then
        LC_ALL=C sed -u "s/^/$rel_tag /"
    else
        while IFS= read -r rel_l || [ -n "$rel_l" ]; do printf '%s %s\n' "$rel_tag" "$rel_l"; done
    fi
}

# LINES FOLLOW PATTERN...: of services, detached steps, scopes, and of files named besides.
rel_logs() {
    rel_most=$1 rel_follow=$2
    shift 2
    rel_tag=0 rel_known= rel_unbuffered=
    if echo | sed -u p >/dev/null 2>&1; then rel_unbuffered=1; fi
    rel_emit clock "$(date +%s)" "$(date +%z)"
    for rel_d in "$rel_state/services"/*; do
        if [ -s "$rel_d/log" ]; then rel_log "${rel_d##*/}" "$(cat -- "$rel_d/log")"; fi
    done
    for rel_d in "$rel_state/detached"/*; do
        if [ -s "$rel_d/name" ]; then rel_log "$(cat -- "$rel_d/name")" "$rel_d/log"; fi
    done
    if [ -e "$rel_state/scopes.log" ]; then rel_log scopes "$rel_state/scopes.log"; fi
    for rel_p in "$@"; do
        # Not split into words, but its stars mean files.
        IFS=
        for rel_f in $rel_p; do
            IFS=" $rel_tab"
            case $rel_f in
            # Nothing is called so.
            *[*?[]*) if [ ! -e "$rel_f" ]; then continue; fi ;;
            esac
            rel_log "${rel_f##*/}" "$rel_f"
        done
        IFS=" $rel_tab"
    done
    rel_emit live
    if [ -n "$rel_follow" ]; then wait; fi
}
