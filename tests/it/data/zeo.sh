# Restarts the ZEO of a test: VENV DIRECTORY PORT. Returns when it takes connections.
cd "$2"
if [ -s zeo.pid ]; then
    pid=$(cat zeo.pid)
    kill "$pid" 2>/dev/null || :
    n=0
    while grep -q '^State:.[^Z]' "/proc/$pid/status" 2>/dev/null; do
        n=$((n + 1))
        if [ "$n" -gt 100 ]; then kill -KILL "$pid" 2>/dev/null || :; fi
        sleep 0.05
    done
fi
# It says itself who it is: whoever ends this script does not lose it.
setsid sh -c 'echo $$ >zeo.pid; exec "$1/bin/python" -m ZEO.runzeo -C zeo.conf' sh "$1" </dev/null >>zeo.log 2>&1 &
n=0
until "$1/bin/python" -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1).close()' "$3" 2>/dev/null; do
    n=$((n + 1))
    if [ "$n" -gt 200 ]; then tail -n 5 zeo.log; exit 1; fi
    sleep 0.05
done
