# Functions for texts of recipes that also questions may call: lists, digests, names.

# KEEP CURRENT FORMER VALUES...: prints the oldest values that have to go so that KEEP are left, one
# a line; never CURRENT or FORMER.
rel_old() {
    local keep="$1" current="$2" former="$3" count one
    shift 3
    count=1
    for one in "$@"; do
        if [ "$one" != "$current" ]; then count=$((count + 1)); fi
    done
    for one in "$@"; do
        if [ "$count" -le "$keep" ]; then break; fi
        if [ "$one" = "$current" ] || [ "$one" = "$former" ]; then continue; fi
        printf '%s\n' "$one"
        count=$((count - 1))
    done
}

# SCRIPT FILTER: prints the SHA-256 of the output of SCRIPT after FILTER. A pipe has only the status
# of its last command, so each command prints `ended` when it succeeded.
rel_digest() {
    local rel_said rel_ends=0 rel_word rel_sum=''
    rel_said=$(
        {
            { eval "$1" && echo ended >&3; } |
                { eval "$2" && echo ended >&3; } |
                { sha256sum && echo ended >&3; }
        } 3>&1
    )
    for rel_word in $rel_said; do
        case $rel_word in
        ended) rel_ends=$((rel_ends + 1)) ;;
        -) ;;
        *) rel_sum=$rel_word ;;
        esac
    done
    if [ "$rel_ends" -ne 3 ]; then
        printf 'it was not read to its end\n' >&2
        return 1
    fi
    printf '%s\n' "$rel_sum"
}

# DIR APPLIED: prints the files of DIR that are not among the lines APPLIED, in order, as
# `DIGEST NAME`. For a file that was applied and has changed since it prints a line with `!`.
rel_due() (
    local file sum due seen line
    LC_ALL=C
    if [ ! -d "$1" ]; then printf '! there is no directory %s\n' "$1"; fi
    for file in "$1"/*; do
        if [ ! -f "$file" ]; then continue; fi
        sum=$(sha256sum <"$file") || exit 1
        due="${sum%% *} ${file##*/}"
        seen=
        while IFS= read -r line; do
            if [ "$line" = "$due" ]; then seen=same; break; fi
            if [ "${line#* }" = "${file##*/}" ]; then seen=other; fi
        done <<END
$2
END
        case $seen in
        same) ;;
        other) printf '! %s was applied, and has changed since\n' "${file##*/}" ;;
        *) printf '%s\n' "$due" ;;
        esac
    done
)

# NAME: sets rel_flat to the name of a service: without slashes.
rel_flat() {
    rel_flat=$1
    while :; do
        case $rel_flat in
        */*) rel_flat=${rel_flat%%/*}_${rel_flat#*/} ;;
        *) return 0 ;;
        esac
    done
}
