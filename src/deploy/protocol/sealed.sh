# --- whether a directory is as it was laid down -------------------------------
# A manifest, `.rel-manifest` in the directory, says what lay there: a line for the mode and owner
# of each file and directory, for the digest of each file, for each link. Left out are `__pycache__`,
# which Python keeps beside its sources, and at the top names that begin with `.rel-`.

# DIR: prints what lies in DIR, in the order of bytes.
rel_list_sealed() (
    cd -- "$1" || exit 1
    LC_ALL=C
    export LC_ALL
    set -- \( -path './.rel-*' -o -name __pycache__ \) -prune -o
    {
        find . "$@" -type f -exec sha256sum -- {} + &&
            find . "$@" ! -type l -exec stat -c 'mode %a %u:%g %n' -- {} + &&
            find . "$@" -type l -exec sh -c \
                'for rel_l; do rel_t=$(readlink -- "$rel_l") && printf "link %s -> %s\n" "$rel_l" "$rel_t" || exit 1; done' \
                sh {} + && echo whole
    } 2>/dev/null | sort >"$rel_tmp/sealed" && grep -qxF whole "$rel_tmp/sealed" &&
        grep -vxF whole "$rel_tmp/sealed"
)

# DIR: writes its manifest. Where that can not be made there is none: it is no reason to fail.
rel_seal() {
    local mode=0644
    # What root can read others need not know by its digest.
    if [ "$rel_uid" = 0 ]; then mode=0600; fi
    if rel_list_sealed "$1" >"$rel_tmp/manifest"; then
        ( rel_foreign_ok=1; rel_beside "$1/.rel-manifest" rel_replace_there "$1/.rel-manifest" "$mode" ) \
            <"$rel_tmp/manifest"
    fi
}

# DIR: prints what was changed, removed and added there since its manifest was written, a line each.
# What stands at the top under a name of its own belongs to whatever runs there. Fails where nothing
# is known.
rel_edits() (
    if [ ! -f "$1/.rel-manifest" ] || [ ! -r "$1/.rel-manifest" ]; then exit 1; fi
    rel_list_sealed "$1" >"$rel_tmp/listed" || exit 1
    # Only the paths.
    set -- "$1" 's/^link \(.*\) -> .*/\1/; s/^mode [0-7]* [0-9]*:[0-9]* //; s/^\\\{0,1\}[0-9a-f]\{64\} [ *]//'
    LC_ALL=C comm -23 "$1/.rel-manifest" "$rel_tmp/listed" | sed "$2" | LC_ALL=C sort -u >"$rel_tmp/former"
    LC_ALL=C comm -13 "$1/.rel-manifest" "$rel_tmp/listed" | sed "$2" | LC_ALL=C sort -u |
        LC_ALL=C comm -13 "$rel_tmp/former" - >"$rel_tmp/new"
    while IFS= read -r rel_f; do
        rel_t=gone
        # With a backslash it is written as sha256sum escapes it.
        case $rel_f in *\\*) rel_t=changed ;; esac
        if [ -e "$1/$rel_f" ] || [ -L "$1/$rel_f" ]; then rel_t=changed; fi
        printf '%s %s\n' "$rel_t" "${rel_f#./}"
    done <"$rel_tmp/former" | head -n 1000
    while IFS= read -r rel_f; do
        rel_f=${rel_f#./}
        if grep -qF -- " ./${rel_f%%/*}/" "$1/.rel-manifest"; then printf 'new %s\n' "$rel_f"; fi
    done <"$rel_tmp/new" | head -n 1000
)
