#!/usr/bin/env bash
# repozo of ZODB 6.4: a backup whose newest increment is gone is restored without it, with exit
# status 0, also by `--with-verify`. The list of files that the backup keeps (`*.dat`) names the
# missing one, but only `--verify` (-V), a command of its own, compares the list with what is there.
#
# Seen (status of --recover, of --recover --with-verify, of --verify; what is in the two files):
#   0 0 1: one two / one two
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check 'ZODB==6.4'

mkdir backup
for word in one two three; do
    venv/bin/python - "$word" <<'PYTHON'
import sys, transaction, ZODB, ZODB.FileStorage
db = ZODB.DB(ZODB.FileStorage.FileStorage("Data.fs"))
connection = db.open()
connection.root()[sys.argv[1]] = sys.argv[1] * 1000
transaction.commit()
db.close()
PYTHON
    venv/bin/repozo --backup --repository backup --file Data.fs
    sleep 1.1 # Names of increments are made of seconds.
done
increments=(backup/*.deltafs)
rm "${increments[-1]}"

words() {
    venv/bin/python - "$1" <<'PYTHON'
import sys, ZODB, ZODB.FileStorage
db = ZODB.DB(ZODB.FileStorage.FileStorage(sys.argv[1], read_only=True))
print(*sorted(db.open().root()))
db.close()
PYTHON
}
plain=0
venv/bin/repozo --recover --repository backup --output plain.fs || plain=$?
checked=0
venv/bin/repozo --recover --with-verify --repository backup --output checked.fs || checked=$?
verified=0
venv/bin/repozo --verify --repository backup || verified=$?
seen="$plain $checked $verified: $(words plain.fs) / $(words checked.fs)"
printf '%s\n' "$seen"
if [ "$seen" != "0 0 1: one two / one two" ]; then
    echo "this has changed" >&2
    exit 1
fi
