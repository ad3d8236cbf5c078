# Scopes: functions that sessions and programs both need. A scope that is open (entered, and not yet
# left) has a file in $rel_state/scopes: a script that leaves it.

# PATH...: syncs files and directories to disk.
rel_flush() { sync -- "$@" 2>/dev/null || sync; }

# NAME: the scope is left.
rel_scope_end() { rm -f -- "$rel_state/scopes/$1"; }

# NAME: leaves the scope, if it is open. In a shell of its own, in which `set -e` has an effect.
rel_scope_leave() {
    if [ ! -s "$rel_state/scopes/$1" ]; then return 0; fi
    ( umask "$rel_umask"; cd -- "$rel_root"; exec sh -eu "$rel_state/scopes/$1" ) </dev/null 9>&- &&
        rel_scope_end "$1"
}
