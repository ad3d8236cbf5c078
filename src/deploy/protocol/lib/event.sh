# Events: the lines with which a session and its programs report to rel.

rel_emit() { printf '\036%s %s\n' "$rel_nonce" "$*"; }

rel_tab='	'
rel_newline='
'
