# Logs of the environment on this host: prints them with a tag before each line, and follows them.

# NAME PATH: prints the end of one log and, if it is followed, the lines after that, also after a
# rotation. No line between the two is lost or printed twice.
rel_log() {
    case $rel_known in
    *"<$2>"*) return 0 ;;
    esac
    rel_known="$rel_known<$2>"
    rel_tag=$((rel_tag + 1))
    if ! rel_is_readable "$2"; then
        rel_emit source "$rel_tag" 0 "$1"
        echo "$rel_tag not read: it is not a file, or it is a link that another user can change"
        return 0
    fi
    rel_size=$(wc -c <"$2") || rel_size=0
    rel_emit source "$rel_tag" "$(date -r "$2" +%s || echo 0)" "$1"
    # The last line may be incomplete.
    if [ "$((rel_size))" -gt 0 ]; then { rel_log_old "$2" | rel_log_tagged; echo; }; fi
    if [ -n "$rel_follow" ]; then
        { tail -c "+$((rel_size + 1))" -F -- "$2" | rel_log_tagged; } </dev/null &
    fi
} 2>/dev/null

# PATH: prints its last lines up to rel_size; a mebibyte at most.
rel_log_old() {
    if [ "$((rel_size))" -gt 1048576 ]; then
        tail -c "+$((rel_size - 1048575))" -- "$1" | head -c 1048576 | sed 1d
    else
        head -c "$((rel_size))" -- "$1"
    fi | tail -n "$rel_most"
}

# Prints each line at once, in one write.
rel_log_tagged() {
    local line=''
    if [ -n "$rel_unbuffered" ]; then
        LC_ALL=C sed -u "s/^/$rel_tag /"
    else
        while IFS= read -r line || [ -n "$line" ]; do printf '%s %s\n' "$rel_tag" "$line"; done
    fi
}

# LINES FOLLOW PATTERN...: the logs of services, detached steps and scopes, and further files.
rel_logs() {
    local dir pattern file
    rel_most=$1 rel_follow=$2
    shift 2
    rel_tag=0 rel_known='' rel_unbuffered=''
    if echo | sed -u p >/dev/null 2>&1; then rel_unbuffered=1; fi
    rel_emit clock "$(date +%s)" "$(date +%z)"
    for dir in "$rel_state/services"/*; do
        if [ -s "$dir/log" ]; then rel_log "${dir##*/}" "$(cat -- "$dir/log")"; fi
    done
    for dir in "$rel_state/detached"/*; do
        if [ -s "$dir/name" ]; then rel_log "$(cat -- "$dir/name")" "$dir/log"; fi
    done
    if [ -e "$rel_state/scopes.log" ]; then rel_log scopes "$rel_state/scopes.log"; fi
    for pattern in "$@"; do
        # Not split into words, but expanded to paths.
        IFS=
        for file in $pattern; do
            IFS=" $rel_tab"
            case $file in
            # No file matches.
            *[*?[]*) if [ ! -e "$file" ]; then continue; fi ;;
            esac
            rel_log "${file##*/}" "$file"
        done
        IFS=" $rel_tab"
    done
    rel_emit live
    if [ -n "$rel_follow" ]; then wait; fi
}
