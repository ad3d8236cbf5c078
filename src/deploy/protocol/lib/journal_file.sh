# The journal as a file: its size, and how it is shortened.

# Sets rel_size to the number of bytes that were ever written to the journal, at most.
rel_journal_size() {
    local line=''
    if [ ! -s "$rel_state/journal" ]; then
        rel_size=0
        return
    fi
    rel_size=$(wc -c <"$rel_state/journal") || rel_size=-1
    read -r line <"$rel_state/journal" || line=
    case $line in
    "1${rel_tab}shortened$rel_tab"*)
        line=${line#*"$rel_tab-$rel_tab-$rel_tab"}
        rel_size=$((rel_size + ${line%%"$rel_tab"*}))
        ;;
    *) rel_size=$((rel_size)) ;;
    esac
}

# SIZE COUNT SCRIPT: shortens the journal to the lines that the sed script SCRIPT prints; the first
# COUNT of them belong to older runs. Sizes continue from SIZE, so that a shortened journal has
# another size. The former journal stays in `journals`, in the order of sizes. If either cannot be
# written, nothing changes. The copy gives the new file its mode and owner.
rel_shorten() {
    local new="$rel_state/journal.new" name
    name=$(printf '%020d' "$1")-$rel_run
    rel_now
    mkdir -p -- "$rel_state/journals" && cp -p -- "$rel_state/journal" "$new" && {
        printf '1\tshortened\t%s\t%s\t-\t-\t%s\t%s\t%s\n' "$rel_time" "$rel_run" "$1" "$rel_who" "$2" &&
            sed -n "$3" "$rel_state/journal"
    } >"$new" && rel_flush "$new" &&
        ln -f -- "$rel_state/journal" "$rel_state/journals/$name" &&
        mv -f -- "$new" "$rel_state/journal" || rm -f -- "$new"
} 2>/dev/null
