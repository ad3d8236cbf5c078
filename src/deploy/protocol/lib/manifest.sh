# The manifest of a release: whether a directory is as it was deployed.
#
# The manifest is the file `.rel-manifest` in the directory. It has a line for the mode and owner
# of each file and directory, for the digest of each file, and for each link. It leaves out
# `__pycache__`, which Python writes beside its sources, and names at the top that begin with
# `.rel-`.

# DIR: prints the lines of a manifest of DIR, sorted by bytes.
rel_list_sealed() (
    cd -- "$1" || exit 1
    LC_ALL=C
    export LC_ALL
    set -- \( -path './.rel-*' -o -name __pycache__ \) -prune -o
    {
        find . "$@" -type f -exec sha256sum -- {} + &&
            find . "$@" ! -type l -exec stat -c 'mode %a %u:%g %n' -- {} + &&
            find . "$@" -type l -exec sh -c \
                'for one; do to=$(readlink -- "$one") && printf "link %s -> %s\n" "$one" "$to" || exit 1; done' \
                sh {} + && echo whole
    } 2>/dev/null | sort >"$rel_tmp/sealed" && grep -qxF whole "$rel_tmp/sealed" &&
        grep -vxF whole "$rel_tmp/sealed"
)

# DIR: writes its manifest. If that is not possible there is none, and the step does not fail.
rel_seal() {
    local mode=0644
    # A digest tells others about files that only root can read.
    if [ "$rel_uid" = 0 ]; then mode=0600; fi
    if rel_list_sealed "$1" >"$rel_tmp/manifest"; then
        ( rel_foreign_ok=1; rel_beside "$1/.rel-manifest" rel_replace_there "$1/.rel-manifest" "$mode" ) \
            <"$rel_tmp/manifest"
    fi
}

# DIR: prints a line for each file that was changed, removed or added since its manifest was
# written. A new name at the top is left out: the software that runs there made it. Fails without a
# manifest.
rel_edits() (
    local one='' what
    if [ ! -f "$1/.rel-manifest" ] || [ ! -r "$1/.rel-manifest" ]; then exit 1; fi
    rel_list_sealed "$1" >"$rel_tmp/listed" || exit 1
    # Only the paths.
    set -- "$1" 's/^link \(.*\) -> .*/\1/; s/^mode [0-7]* [0-9]*:[0-9]* //; s/^\\\{0,1\}[0-9a-f]\{64\} [ *]//'
    LC_ALL=C comm -23 "$1/.rel-manifest" "$rel_tmp/listed" | sed "$2" | LC_ALL=C sort -u >"$rel_tmp/former"
    LC_ALL=C comm -13 "$1/.rel-manifest" "$rel_tmp/listed" | sed "$2" | LC_ALL=C sort -u |
        LC_ALL=C comm -13 "$rel_tmp/former" - >"$rel_tmp/new"
    while IFS= read -r one; do
        what=gone
        # With a backslash it is written as sha256sum escapes it.
        case $one in *\\*) what=changed ;; esac
        if [ -e "$1/$one" ] || [ -L "$1/$one" ]; then what=changed; fi
        printf '%s %s\n' "$what" "${one#./}"
    done <"$rel_tmp/former" | head -n 1000
    while IFS= read -r one; do
        one=${one#./}
        if grep -qF -- " ./${one%%/*}/" "$1/.rel-manifest"; then printf 'new %s\n' "$one"; fi
    done <"$rel_tmp/new" | head -n 1000
)
