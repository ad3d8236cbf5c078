# The journal: one line for each event on this host.

# EVENT SEQ ID KEY DETAIL, with `-` for none: appends a line to the journal. Sets rel_unwritten, and
# fails, if it cannot be written.
rel_journal() {
    rel_now
    printf '1\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$rel_time" "$rel_run" \
        "$2" "$3" "$4" "$rel_who" "$5" >>"$rel_state/journal" || { rel_unwritten=1; return 1; }
}
