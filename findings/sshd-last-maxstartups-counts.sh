#!/usr/bin/env bash
# OpenSSH sshd 9.2p1 (Debian 1:9.2p1-2+deb12u10): of two lines of one keyword in sshd_config the
# first counts, says sshd_config(5). For MaxStartups, PerSourceMaxStartups and IPQoS the last one
# does. Who puts a stricter limit in front, as an included drop-in file does, has no effect.
#
# Seen:
#   logingracetime 10
#   maxsessions 3
#   maxstartups 100:100:100
#   persourcemaxstartups 3
#   ipqos throughput throughput
set -euo pipefail
version="1:9.2p1-2+deb12u10"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
chmod 755 .
apt-get download -qq "openssh-server=$version" "openssh-client=$version" 2>/dev/null
for package in ./*.deb; do dpkg -x "$package" .; done

./usr/bin/ssh-keygen -q -t ed25519 -N '' -f key
cat >config <<'CONFIG'
LoginGraceTime 10
MaxSessions 3
MaxStartups 1:100:1
PerSourceMaxStartups 2
IPQoS lowdelay
LoginGraceTime 20
MaxSessions 4
MaxStartups 100
PerSourceMaxStartups 3
IPQoS throughput
CONFIG
seen=$(./usr/sbin/sshd -T -h "$dir/key" -f config |
    grep -E '^(logingracetime|maxsessions|maxstartups|persourcemaxstartups|ipqos) ' | sort)
printf '%s\n' "$seen"
expected='ipqos throughput throughput
logingracetime 10
maxsessions 3
maxstartups 100:100:100
persourcemaxstartups 3'
if [ "$seen" != "$expected" ]; then
    echo "this has changed" >&2
    exit 1
fi
