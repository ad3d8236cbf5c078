# Releases that share files with the release before (hard links).

# Whether releases in the directory that was entered may share files: not those of root where
# another user can replace them.
rel_may_share() { [ -z "$rel_entered_foreign" ] || [ "$rel_uid" != 0 ]; }

# BASE DIR: records the last directory of a kind.
rel_set_base() {
    { [ -d "$rel_state/bases" ] || mkdir -p -- "$rel_state/bases"; } &&
        ln -sfn -- "$2" "$rel_state/bases/$1"
}
