# Services: functions that also questions need. services.sh starts and stops them.

rel_service_alive() {
    { read -r rel_pid rel_born <"$rel_state/services/$1/pid"; } 2>/dev/null || return 1
    rel_read_birth "$rel_pid" && [ "$rel_birth" = "$rel_born" ]
}

# NAME: fails with the reason if a service could not be started again, as far as that can be known
# without a try: its script, its directory and its program.
rel_can_start() {
    local dir="$rel_state/services/$1" first='' before='' last='' line='' path word
    if [ ! -s "$dir/pid" ]; then return 0; fi
    if [ ! -s "$dir/run" ]; then
        printf 'how %s was started is not known any more: %s is gone\n' "$1" "$dir/run"
        return 1
    fi
    while IFS= read -r line; do
        first=${first:-$line} before=$last last=$line
    done <"$dir/run"
    path=${first#'cd -- '}
    case $path in
    *\\* | "$first") return 0 ;;
    "'"*"'")
        path=${path#"'"}
        path=${path%"'"}
        ;;
    *"'"*) return 0 ;;
    esac
    if [ ! -d "$path" ]; then
        printf '%s, where %s runs, is gone\n' "$path" "$1"
        return 1
    fi
    # A command of one line. Older scripts open the log in the line before it.
    case $before in
    '# run' | 'exec >>'*) ;;
    *) return 0 ;;
    esac
    word=${last#exec }
    word=${word%%[ ;]*}
    case $word in
    *[!A-Za-z0-9._/-]*) ;;
    /*) path= ;;
    */*) path=$path/ ;;
    *) word= ;;
    esac
    case $word in
    '' | *[!A-Za-z0-9._/-]*) return 0 ;;
    esac
    if [ ! -x "$path$word" ]; then
        printf '%s, which %s runs, is gone\n' "$path$word" "$1"
        return 1
    fi
}
