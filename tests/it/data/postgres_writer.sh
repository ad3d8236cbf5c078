# Writes to the database `app` all the time: PORT ACKS. A session holds for twenty writes; a number goes
# into ACKS once it was committed.
number=0
while :; do
    first=$((number + 1))
    number=$((number + 20))
    i=$first
    while [ "$i" -le "$number" ]; do
        printf 'INSERT INTO words (number) VALUES (%s);\n\\echo %s\n\\! sleep 0.01\n' "$i" "$i"
        i=$((i + 1))
    done | psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$1" -U postgres -d app >>"$2" || sleep 0.02
done
