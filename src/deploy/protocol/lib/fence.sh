# The part of the lease that programs need too: whether this run is the holder, and the lock that
# keeps it the holder while it acts. lease.sh has the rest, and the files.

# FILE: reads a lease into rel_lease_…; fails when there is none.
rel_read_lease() {
    rel_lease_token=
    { IFS=$rel_tab read -r rel_lease_token rel_lease_who rel_lease_run rel_lease_purpose rel_lease_since rel_lease_pid \
        rel_lease_born rel_lease_ttl rel_lease_clock rel_lease_tmp <"$1"; } 2>/dev/null || :
    [ -n "$rel_lease_token" ]
}

# Whether another session is taking the lease over from the holder that was read.
rel_is_revoked() {
    local token='' rest=''
    { IFS=$rel_tab read -r token rest <"$rel_state/revoked"; } 2>/dev/null || return 1
    [ "$token" = "$rel_lease_token" ]
}

# Whether this session still holds the lease. A session that only asks holds none.
rel_holds() {
    rel_read_lease "$rel_state/lease" && [ "$rel_lease_token" = "${rel_token:-}" ] && ! rel_is_revoked
}

# Takes a shared lock of the fence on descriptor 9. Again if `flock` was killed.
rel_lock_fence() {
    while :; do
        flock -s 9 && return
        if [ "$?" -lt 128 ]; then return 1; fi
    done
}
