# What a rollback would do, before it does it.
#
# Prints a line for each thing that the undo scripts of steps would change, and for each objection.
# It changes nothing, and runs no text of a recipe but `rollback-check`. A line has columns with
# tabs between them, as plan/rollback.rs reads them: KIND RUN SEQ WHAT FOUND WANTED. For a file
# that would be restored, mode, user and group follow.

rel_met=$rel_newline

# KIND WHAT [FOUND [WANTED [ACCESS]]]: prints a line about the step rel_of_run, rel_of_seq.
rel_say() {
    local line="$1$rel_tab$rel_of_run$rel_tab$rel_of_seq" one
    shift
    for one in "$@"; do
        rel_column "$one"
        line=$line$rel_tab$rel_column_text
    done
    printf '%s\n' "$line"
}

# RUN: checks the undo directory of a run.
rel_prove_run() {
    rel_of_run=$1 rel_of_seq=0
    if [ -d "$rel_state/undo/$1" ]; then return 0; fi
    rel_say missing "the rollback data of run $1 is gone: $rel_state/undo/$1"
}

# RUN: checks that a run without lines in the journal has left no undo directory.
rel_prove_no_run() {
    rel_of_run=$1 rel_of_seq=0
    if [ ! -d "$rel_state/undo/$1" ]; then return 0; fi
    rel_say missing "the journal does not know run $1, which left this rollback data: $rel_state/undo/$1"
}

# LINE: whether it is one call with words in single quotes, as rel_call writes it, and nothing else.
# Older scripts have `there` without quotes.
rel_is_call() {
    local rest="${1#"${1%% *}"}"
    while :; do
        case $rest in
        '' | ' there') return 0 ;;
        " '"*) rest=${rest#" '"} ;;
        # A quote within a word: the quotes end before it, and begin again after it.
        "\\''"*) rest=${rest#"\\''"} ;;
        *) return 1 ;;
        esac
        case $rest in
        *"'"*) rest=${rest#*"'"} ;;
        *) return 1 ;;
        esac
    done
}

# RUN SEQ: checks the undo scripts of one step. Steps are given in the order of the rollback. Only
# the first step for a file has to find what it left; the next ones find what that one restores.
rel_prove_step() {
    local suffix file own first line
    rel_of_run=$1
    for suffix in .last .late .start ''; do
        rel_of_seq=$2$suffix
        file=$rel_state/undo/$1/$2$suffix
        if [ ! -s "$file" ]; then continue; fi
        rel_say step -
        own=1 first=1
        rel_allowed=${rel_foreign_ok:-}
        while IFS= read -r line; do
            case $first$line in
            "1$rel_undo_head") ;;
            '1# rel undo '*) rel_say missing "$(rel_undo_is_newer "$file")" ;;
            esac
            first=
            case $line in
            '# rel undo '*) ;;
            rel_foreign_ok=1) rel_allowed=1 ;;
            # Leaving a scope runs a text of a recipe.
            "rel_scope_leave '"*)
                if [ -s "$file.enter" ]; then
                    rel_say scope 'leaves what it entered'
                else
                    rel_say command 'leaves what it entered'
                fi
                ;;
            "rel_symlink_back '"* | "rel_write_back '"* | "rel_unwrite '"* | "rel_secret_back '"* | \
                "rel_service_back '"* | "rel_service_go '"* | "rel_service_stop '"*)
                if rel_is_call "$line"; then eval "rel_prove_${line#rel_}"; else own=; fi
                ;;
            *) own= ;;
            esac
        done <"$file"
        if [ -z "$own" ]; then rel_say command 'its own undo'; fi
    done 2>/dev/null
}

# RUN SEQ: runs the `rollback-check` of a step: whether its rollback would lose anything.
rel_prove_check() {
    local rel_file="$rel_state/undo/$1/$2" rel_said
    rel_of_run=$1 rel_of_seq=$2
    if [ ! -s "$rel_file.check" ]; then return 0; fi
    # shellcheck source=/dev/null
    rel_said=$( ( unset rel_nonce; set -eu; umask "$rel_umask"; cd -- "$rel_root"; . "$rel_file.check" ) </dev/null 2>&1 9>&-)
    if [ "$?" -ne 0 ]; then rel_say refused "${rel_said:-it does not say why}"; fi
}

# NAME: fails if a step that is rolled back before has named it.
rel_is_first() {
    case $rel_met in
    *"$rel_newline$1$rel_newline"*) return 1 ;;
    esac
    rel_met=$rel_met$1$rel_newline
}

# PATH: reports a foreign directory, into which root does not write.
rel_prove_dir() {
    rel_whoami
    if [ "$rel_uid" != 0 ] || [ -n "$rel_allowed" ]; then return 0; fi
    rel_find_foreign "${1%/*}"
    if [ -n "$rel_foreign" ]; then rel_say missing "$(rel_explain_foreign "$1")"; fi
}

# NAME FORMER LEFT: for a step that is rolled back after another one: whether the other one restores
# what this one left. Otherwise something changed it between the two. FORMER, or nothing, is fine
# as well.
rel_prove_chain() {
    local brought
    brought=${rel_met##*"$rel_newline$1$rel_tab"}
    brought=${brought%%"$rel_newline"*}
    rel_column "$3"
    if [ -z "$3" ] || [ "$brought" = "$rel_column_text" ] || [ -z "$brought" ]; then return 0; fi
    rel_column "$2"
    if [ "$brought" != "$rel_column_text" ]; then rel_say between "${1#* }" "$brought" "$3"; fi
}

# NAME FORMER: remembers what a step restores.
rel_brings() {
    rel_column "$2"
    rel_met="$rel_met$1$rel_tab$rel_column_text$rel_newline"
}

rel_prove_symlink_back() {
    local to
    rel_prove_dir "$1"
    rel_prove_way "$1"
    if ! rel_is_first "link $1"; then
        rel_prove_chain "link $1" "$2" "${4:-}"
    elif ! rel_link_is "$1" "$2" "${4:-}" && [ -n "${4:-}" ]; then
        rel_say differs "$1" "$rel_found" "$4"
    fi
    rel_brings "link $1" "$2"
    to='no link'
    if [ -L "$1" ]; then to=$(readlink -- "$1"); elif [ -d "$1" ]; then to='a directory'; fi
    rel_say link "$1" "$to" "${2:-no link}"
    if [ "${3:-}" != there ]; then return 0; fi
    case $2 in
    /*) to=$2 ;;
    *) to=${1%/*}/$2 ;;
    esac
    if [ ! -e "$to" ]; then
        rel_say nowhere "$to, to which $1 would point again, is gone"
    elif [ -z "${rel_is_after:-}" ] && to=$(rel_edits "$to"); then
        if [ -n "$to" ]; then
            to=$(printf '%s\n' "$to" | sed -n '6s/.*/.../; 1,6p' | sed '$!s/$/,/')
            rel_say edited "${1%/*}/$2" "$to"
        fi
    fi
}

# PATH: sets rel_sum to the digest of a file, or to words.
rel_sum_of() {
    if [ -L "$1" ]; then
        rel_sum='a link'
    elif [ -d "$1" ]; then
        rel_sum='a directory'
    elif [ ! -e "$1" ]; then
        rel_sum='no file'
    elif [ -f "$1" ] && rel_sum=$(sha256sum <"$1"); then
        rel_sum=${rel_sum%% *}
    else
        rel_sum='what cannot be read'
    fi
}

# PATH: reports a directory at that path, which is not replaced.
rel_prove_way() {
    if [ -d "$1" ] && [ ! -L "$1" ]; then rel_say directory "$1 is a directory by now"; fi
}

# PATH FORMER LEFT ACCESS: a file that had the content FORMER, or did not exist, before rel wrote
# LEFT.
rel_prove_file() {
    local found former
    rel_prove_dir "$1"
    rel_prove_way "$1"
    rel_sum_of "$1"
    found=$rel_sum
    former='no file'
    if [ -n "$2" ]; then
        if [ ! -f "$2" ] && [ ! -L "$2" ]; then
            rel_say missing "the former content of $1 is gone: $2"
        fi
        rel_sum_of "$2"
        former=$rel_sum
    fi
    if ! rel_is_first "file $1"; then
        rel_prove_chain "file $1" "$former" "$3"
    elif [ -n "$3" ]; then
        case $found in
        "$3" | "$former" | 'no file') ;;
        *) rel_say differs "$1" "$found" "$3" ;;
        esac
    fi
    if [ "$former" = 'no file' ]; then rel_brings "file $1" ''; else rel_brings "file $1" "$former"; fi
    rel_say file "$1" "$found" "$former" "$4"
}

rel_prove_write_back() { rel_prove_file "$1" "$2" "${3:-}" "${4:-}"; }

rel_prove_unwrite() { rel_prove_file "$1" '' "$2" ''; }

# PATH MARK FORMER: a secret. Only its presence is reported.
rel_prove_secret_back() {
    local found='no file' former='no file'
    rel_prove_dir "$1"
    if [ -e "$1" ] || [ -L "$1" ]; then found='a secret'; fi
    if [ -n "$3" ]; then
        former='the former one'
        if [ ! -e "$3/${1##*/}" ] && [ ! -L "$3/${1##*/}" ]; then
            rel_say missing "the former content of $1 is gone: $3"
        fi
    fi
    rel_prove_way "$1"
    if rel_is_first "file $1" && [ -f "$1" ] && [ -f "$2" ] && ! rel_is_own_secret "$1" "$2"; then
        if [ "$1" -nt "$2" ]; then
            rel_say differs "$1" 'a newer file' 'the secret that rel wrote'
        else
            rel_say differs "$1" 'another file' 'the secret that rel wrote'
        fi
    fi
    rel_say file "$1" "$found" "$former"
}

# NAME LEFT WANTED: a service that was started by a script with the digest LEFT.
rel_prove_service() {
    local found=stopped
    if rel_service_alive "$1"; then
        found=running
        if rel_is_first "service $1" && [ -n "$2" ]; then
            rel_sum_of "$rel_state/services/$1/run"
            if [ "$rel_sum" != "$2" ]; then rel_say differs "service $1" "$rel_sum" "$2"; fi
        fi
    fi
    rel_say service "service $1" "$found" "$3"
}

rel_prove_service_back() {
    if [ ! -s "$2" ]; then
        rel_say missing "how $1 was started is not known any more: $2 is gone"
    fi
    rel_prove_service "$1" "${3:-}" 'running as before'
}

rel_prove_service_stop() { rel_prove_service "$1" "${2:-}" stopped; }

rel_prove_service_go() {
    if [ ! -s "$rel_state/services/$1/run" ]; then
        rel_say missing "how $1 was started is not known any more"
    fi
    rel_prove_service "$1" '' running
}

# RUN SEQ SUFFIX: after an undo script, whether everything is as it should be. Fails for an undo
# script of a recipe's own, of which nothing is known.
rel_is_back() {
    local rel_is_after=1 kind run seq what found wanted access has
    rel_prove_step "$1" "$2" >"$rel_tmp/proof"
    while IFS=$rel_tab read -r kind run seq what found wanted access; do
        case $seq:$kind:$found in
        "$2$3:command:"* | "$2$3:scope:"* | "$2$3:nowhere:"* | "$2$3:missing:"*) return 1 ;;
        "$2$3:service:running")
            case $wanted in
            running*) ;;
            *) return 1 ;;
            esac
            ;;
        "$2$3:file:a secret")
            if [ "$wanted" != 'the former one' ]; then return 1; fi
            ;;
        "$2$3:link:"* | "$2$3:file:"* | "$2$3:service:"*)
            if [ "$found" != "$wanted" ]; then return 1; fi
            ;;
        esac
        if [ "$seq" = "$2$3" ] && [ -n "$access" ]; then
            # Only root can give a file to another user.
            rel_access_of "$what" has
            if [ "$has" != "$access" ]; then return 1; fi
        fi
    done <"$rel_tmp/proof"
}
