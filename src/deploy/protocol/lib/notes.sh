# Values that steps note in the journal, and the directories that go with them.

# NAME VALUE: adds a value to {notes.NAME}, by a line of the journal; rel_drop removes it.
rel_note() { rel_column "$2"; rel_journal note "$rel_seq" "$rel_use" "$1" "$rel_column_text"; }

rel_drop() { rel_column "$2"; rel_journal drop "$rel_seq" "$rel_use" "$1" "$rel_column_text"; }

# TEXT: sets rel_column_text to TEXT as one column of the journal.
rel_column() {
    rel_column_text=$1
    case $1 in *[!-_./:@A-Za-z0-9]*) rel_column_text=$(printf '%s' "$1" | tr '\t\n' '  ') ;; esac
}

# NOTE KEEP DIR CURRENT FORMER VALUES...: removes the oldest noted directories below DIR, with
# their marks, until KEEP are left; never CURRENT or FORMER, and nothing that is not noted. A
# directory that does not exist does not count, and its mark is removed. One that cannot be removed
# stays noted: the next run tries again.
rel_prune() {
    local note="$1" keep="$2" dir="$3" current="$4" former="$5" count one
    shift 5
    count=$#
    for one in "$@"; do
        if [ "$one" = "$current" ] || [ -d "$dir/$one" ]; then
            set -- "$@" "$one"
        else
            rel_prune_one "$note" "$dir" "$one"
        fi
    done
    shift "$count"
    rel_old "$keep" "$current" "$former" "$@" | while IFS= read -r one; do
        rel_prune_one "$note" "$dir" "$one"
    done
}

# NOTE DIR VALUE: removes one of them.
rel_prune_one() {
    local words
    if [ -d "$2" ] && ! words=$(rel_remove_whole "$2/$3" 2>&1); then
        rel_warn "$2/$3 could not be removed, and will be tried again: ${words%%"$rel_newline"*}"
        return 0
    fi
    rel_drop "$1" "$3"
}

# PATH: removes a directory and its mark. If it is interrupted, no part stays under that name or
# with that mark: it would pass for the whole.
rel_remove_whole() (
    rel_enter_dir "$1" || exit 1
    if [ -d "./$rel_name" ]; then
        rm -rf -- "./$rel_name.rel-gone" &&
            rel_rename "./$rel_name" "./$rel_name.rel-gone" || exit 1
    fi
    rm -f -- "./$rel_name.rel-copy" && rm -rf -- "./$rel_name.rel-gone"
)

# NAME KEEP DIR CURRENT FORMER VALUES...: the same while CURRENT can still be rolled back: then
# FORMER is needed, and is one of the KEEP.
rel_prune_beside() {
    local name="$1" keep="$2" dir="$3" current="$4" former="$5" count one
    shift 5
    count=$#
    for one in "$@"; do
        if [ "$one" != "$former" ]; then set -- "$@" "$one"; fi
    done
    shift "$count"
    if [ "$former" = - ]; then keep=$((keep + 1)); fi
    rel_prune "$name" "$keep" "$dir" "$current" "$former" "$@"
}

# NAME CURRENT FORMER VALUES...: notes CURRENT as a `try`, unless it is among VALUES: those that are
# noted as `try` or as NAME. If FORMER is among them, it is noted as NAME from here on.
rel_announce() {
    local name="$1" current="$2" former="$3" one
    shift 3
    for one in "$@"; do
        if [ "$one" = "$former" ]; then
            rel_note "$name" "$former"
            rel_drop try "$former"
        fi
    done
    for one in "$@"; do
        if [ "$one" = "$current" ]; then return 0; fi
    done
    rel_note try "$current"
}
