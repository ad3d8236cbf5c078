# Undo scripts: how a step writes them, and how a rollback runs them.
#
# An undo script is a stored format: a later rel runs it. In $rel_state/undo/RUN, step SEQ has
#   SEQ         runs in the step's turn
#   SEQ.start   runs in its turn, or with the `.late` ones of the host where there are any
#   SEQ.late    runs after the scripts of all hosts
#   SEQ.last    runs after those
#   SEQ.check   asks whether a rollback would lose anything
#   SEQ.enter   enters the step's scope again; its first line is `# SCOPE`
#   SEQ.port    the port that rel opens for that, as JSON
#   SEQ.asks    empty: the step only asked
# The first line of a script (of `.enter`, the second) is `# rel undo N`, where N is the number of
# the format. Scripts without that line are older; they have format 1 as well. N grows when a
# script of the new format needs something that a rel of the old one does not have.
#
# These names can be in stored scripts. They stay callable with these arguments, and with fewer
# where these are optional. Arguments may be added. First what rel itself writes:
#   rel_symlink_back PATH FORMER [LED [LEFT]]
#   rel_write_back PATH FORMER [SUM [ACCESS]]
#   rel_unwrite PATH SUM
#   rel_secret_back PATH MARK FORMER
#   rel_service_back NAME FILE [SUM]
#   rel_service_go NAME
#   rel_service_stop NAME [SUM]
#   rel_scope_leave NAME
#   rel_scope_owe NAME LEAVE [again]
#   rel_as USER SCRIPT
# and the assignment `rel_foreign_ok=1`. Then what recipes can call, in `undo` as anywhere:
#   rel_replace PATH [MODE]
#   rel_append PATH FILE
#   rel_mark PATH
#   rel_own DIR HOST
#   rel_clear DIR NAME
#   rel_symlink PATH TARGET [back]
#   rel_note NAME VALUE
#   rel_drop NAME VALUE
#   rel_prune NAME KEEP DIR CURRENT FORMER VALUES...
#   rel_prune_beside NAME KEEP DIR CURRENT FORMER VALUES...
#   rel_announce NAME CURRENT FORMER VALUES...
#   rel_warn TEXT
#   rel_old KEEP CURRENT FORMER VALUES...
#   rel_due DIR APPLIED
#   rel_scope_end NAME
#   rel_flat NAME
#   rel_retire PREFIX NAME
#   rel_can_start NAME
#   rel_digest SCRIPT FILTER
#   rel_flush PATH...
#   rel_service_alive NAME
#   rel_undo SCRIPT
#   rel_undo_start SCRIPT
#   rel_undo_late SCRIPT
#   rel_undo_last SCRIPT
# Variables that recipes know: rel_token, rel_newline, rel_flat, rel_foreign_ok.

rel_undo_head='# rel undo 1'

# TEXT: sets rel_quoted to TEXT as one quoted word.
rel_quote() {
    local rest="$1"
    rel_quoted=
    while :; do
        case $rest in
        *\'*) rel_quoted="$rel_quoted${rest%%\'*}'\\''" rest=${rest#*\'} ;;
        *) break ;;
        esac
    done
    rel_quoted="'$rel_quoted$rest'"
}

# NAME ARGUMENT...: sets rel_call_line to a line that calls NAME.
rel_call() {
    local one
    rel_call_line=$1
    shift
    for one in "$@"; do
        rel_quote "$one"
        rel_call_line="$rel_call_line $rel_quoted"
    done
}

# SCRIPT: adds a line to an undo script of the step at work. `late` scripts run when all hosts are
# rolled back, because a restart has to find the former files; `last` scripts run after those.
# `start` scripts start processes that may depend on a restarted service: with the `late` scripts,
# in the order of the steps, if there are any; otherwise in their turn.
rel_undo() { rel_add_undo '' "$1"; }

rel_undo_late() { rel_add_undo .late "$1"; }

rel_undo_start() { rel_add_undo .start "$1"; }

rel_undo_last() { rel_add_undo .last "$1"; }

# SCRIPT: adds a script that a rollback runs before it changes anything.
rel_rollback_check() { rel_add_undo .check "$1"; }

# SUFFIX SCRIPT: adds a line to the undo script with this suffix.
rel_add_undo() {
    local file="$rel_state/undo/$rel_run/$rel_seq$1"
    if [ ! -s "$file" ]; then set -- "$1" "$rel_undo_head$rel_newline$2"; fi
    printf '%s\n' "$2" >>"$file"
}

# FILE: prints an undo script without the line with the number of its format.
rel_undo_body() { sed '1{/^# rel undo [0-9]*$/d;}' <"$1"; }

# FILE: fails, with a message, for an undo script of a format that this rel does not know.
rel_knows_undo() {
    local head=''
    if [ -s "$1" ]; then IFS= read -r head <"$1" || :; fi
    case $head in
    "$rel_undo_head") ;;
    '# rel undo '*)
        rel_undo_is_newer "$1"
        return 1
        ;;
    esac
}

rel_undo_is_newer() { printf '%s was written by a newer rel: use that one\n' "$1"; }

# Marks a step that only asks: after a rollback of its run its answer does not count any more.
rel_only_asks() { : >"$rel_state/undo/$rel_run/$rel_seq.asks"; }

# RUN SEQ ID SUFFIX OLDER...: removes undo scripts of a step that its older attempts (RUN/SEQ),
# which are rolled back later, make superfluous. An older attempt found the state before both. So a
# service is not started because the newer attempt found it running, and the step counts as undone
# even if the newer attempt changed nothing. `!` marks an older attempt that was interrupted, and
# finished by the newer one: an equal undo script does not run twice.
rel_drop_back() {
    local own="$rel_state/undo/$1/$2" run="$1" seq="$2" id="$3" is_older='' older has was is_one when
    shift 4
    for older in "$@"; do
        is_one=
        case $older in
        '!'*) is_one=1 ;;
        esac
        older=$rel_state/undo/${older#!}
        for when in '' .late .start .last; do
            if [ -s "$older$when" ]; then is_older=1; fi
        done
        for when in '' .start .last; do
            if [ -z "$is_one" ] || [ ! -s "$own$when" ] || [ ! -s "$older$when" ]; then continue; fi
            was=$(rel_undo_body "$older$when") && has=$(rel_undo_body "$own$when") || continue
            if [ "$was" = "$has" ]; then rm -f -- "$own$when"; fi
        done
    done
    if [ -z "$is_older" ]; then return 0; fi
    rm -f -- "$own.late"
    if [ ! -s "$own" ] && [ ! -s "$own.start" ] && [ ! -s "$own.last" ]; then
        rel_must_hold
        rel_journal undone "$seq" "$id" "$run" - || return 0
        rel_emit dropped "$seq" "$run"
    fi
}

# RUN SEQ ID SUFFIX OLDER...: runs the stored undo script of one step, if it has one.
rel_undo_step() {
    local rel_script="$rel_state/undo/$1/$2$4" rel_was_run="$rel_run"
    local rel_away='' rel_proven='' rel_status
    if [ -z "$4" ]; then
        rel_drop_back "$@"
        if rel_detached_of "$1" "$2"; then rel_away=$rel_detached_dir; fi
    fi
    if [ ! -s "$rel_script" ] && [ -z "$rel_away" ]; then
        if [ -e "$rel_script.asks" ]; then
            rel_must_hold
            if rel_journal undone "$2" "$3" "$1" asked; then rm -f -- "$rel_script.asks"; fi
        fi
        return 0
    fi
    rel_must_hold
    rel_emit start "$2" "$1"
    if [ -e "$rel_tmp/kept" ]; then rm -f -- "$rel_tmp/kept"; fi
    # A detached step that goes on would overwrite what is restored.
    if [ -n "$rel_away" ]; then
        rel_detached_stop "$rel_away"
        rel_detached_settle "$rel_away"
        mkdir -p -- "$rel_state/undo/$1"
        : >>"$rel_script"
    fi
    rel_run=$1 rel_seq=$2
    # shellcheck source=/dev/null
    (
        unset rel_nonce
        set -eu
        umask "$rel_umask"
        cd -- "$rel_root"
        rel_knows_undo "$rel_script"
        . "$rel_script"
    ) </dev/null 2>&1 9>&-
    rel_status=$?
    rel_run=$rel_was_run
    if [ -s "$rel_tmp/kept" ]; then rel_emit kept "$(tr '\n' ' ' <"$rel_tmp/kept")"; fi
    if [ "$rel_status" -eq 0 ] && [ -z "$rel_away" ] && rel_is_back "$1" "$2" "$4"; then
        rel_proven=proven
    fi
    # The journal first: to run the script twice is better than not at all.
    if [ "$rel_status" -eq 0 ]; then rel_journal undone "$2" "$3" "$1" - 2>&1 || rel_status=1; fi
    if [ "$rel_status" -eq 0 ]; then
        rm -f -- "$rel_script"
        if [ -z "$4" ] && [ -e "$rel_script.enter" ]; then rm -f -- "$rel_script.enter" "$rel_script.port"; fi
        rel_emit 'done' "$2" $rel_proven
    else
        rel_journal undo-failed "$2" "$3" "$1" "$rel_status"
        rel_emit failed "$2" "$rel_status"
    fi
}
