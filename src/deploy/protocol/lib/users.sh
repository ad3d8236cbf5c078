# Scripts that run as another user.

# USER SCRIPT: runs a script as another user. Only that user and root may end its processes. So a
# process of that user reads from a FIFO that ends with this process, and then ends them.
rel_as() {
    local rel_me rel_inner rel_home rel_one rel_value rel_script rel_line rel_code=0
    rel_me=$(id -un)
    if [ "$rel_me" = "$1" ]; then
        ( set -eu; eval "$2" )
        return
    fi
    rel_inner='
        export REL_RUN_ID="$2"
        exec 3<&0
        ( trap "" TERM; cat <&3 >/dev/null; kill -TERM 0; sleep 1; kill -KILL 0 ) &
        rel_watcher=$!
        ( set -eu; eval "$1" ) </dev/null 3<&- &
        wait "$!"
        rel_s=$?
        kill -KILL "$rel_watcher" 2>/dev/null
        exit "$rel_s"'
    if [ "$rel_me" = root ] && command -v runuser >/dev/null 2>&1; then
        # As sudo does: the environment of root is not for others.
        case $1 in
        *[!a-zA-Z0-9._-]*) rel_home=/ ;;
        *) eval "rel_home=~$1" ;;
        esac
        set -- "$2" runuser -u "$1" -- env -i "HOME=$rel_home" "USER=$1" "LOGNAME=$1" "PATH=$PATH"
        for rel_one in LANG LANGUAGE LC_ALL LC_CTYPE LC_MESSAGES LC_TIME TERM TZ; do
            eval "rel_value=\${$rel_one:-}"
            if [ -n "$rel_value" ]; then set -- "$@" "$rel_one=$rel_value"; fi
        done
    elif command -v sudo >/dev/null 2>&1; then
        set -- "$2" sudo -n -u "$1" --
    elif command -v doas >/dev/null 2>&1; then
        set -- "$2" doas -n -u "$1"
    else
        printf 'nothing here lets %s run commands as %s: no runuser, sudo or doas\n' "$rel_me" "$1"
        return 1
    fi
    rel_script=$1
    shift
    if ! "$@" sh -c : </dev/null; then
        printf '%s may not run commands so: %s; allow it without a password\n' "$rel_me" "$*"
        return 1
    fi
    rm -f -- "$rel_tmp/line"
    mkfifo "$rel_tmp/line"
    sleep 2147483 >"$rel_tmp/line" 2>/dev/null &
    rel_line=$!
    "$@" sh -c "$rel_inner" sh "$rel_script" "$rel_run" <"$rel_tmp/line" || rel_code=$?
    kill -KILL "$rel_line" 2>/dev/null || :
    return "$rel_code"
}
