#!/bin/bash
# Prints sizes, start times and memory of what release.sh made, and fails where one is more than 5 % above its budget.
# MiB throughout. Times and memory are this machine's, so amd64's.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${VERSION:?}
release=build/release
over=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ -x /usr/bin/time ] || { echo "sizes: apt-get install time" >&2; exit 1; }

# check NAME VALUE BUDGET UNIT: a line of the table.
check() {
	local verdict=
	[[ $2 =~ ^[0-9]+(\.[0-9]+)?$ ]] || { echo "sizes: $1: not measured: \"$2\"" >&2; exit 1; }
	if [ -n "$3" ] && awk "BEGIN { exit !($2 > $3 * 1.05) }"; then
		verdict="OVER BUDGET"
		over=1
	fi
	printf '%-44s %8s %-4s %s\n' "$1" "$2" "$4" "${3:+budget $3 $4 $verdict}"
}
mib() { awk "BEGIN { printf \"%.1f\", $(stat -L -c %s "$1") / 1048576 }"; }

for target in "$@"; do
	# shellcheck source=/dev/null
	. "cross/$target.sh"
	check "$target program without library" "$(mib "build/cross/$target/picket")" 12 MiB
	check "$target one file" "$(mib "$release/picket-$version-linux-$target")" 20 MiB
	check "$target tar.gz" "$(mib "$release/picket-$version-linux-$target.tar.gz")" "" MiB
	check "$target deb" "$(mib "$(echo $release/picket_*_"$debian".deb)")" 12 MiB
	check "$target rpm" "$(mib "$(echo $release/picket-*."$rpm".rpm)")" 12 MiB
	check "$target apk" "$(mib "$(echo $release/picket_*_"$apk".apk)")" 12 MiB
	check "$target ipk" "$(mib "$(echo $release/picket_*_"$target".ipk)")" 12 MiB
done

# Start to first score: a whole scan of a small capture, the best of 21, since what else runs here only adds.
first() {
	local begun
	"$@" scan --quiet testdata/gtp-u.pcap.gz >"$work/out" 2>&1 || [ $? -eq 1 ] || { cat "$work/out" >&2; exit 1; }
	for _ in $(seq 21); do
		begun=$(date +%s%N)
		"$@" scan --quiet testdata/gtp-u.pcap.gz >/dev/null 2>&1 || :
		echo $((($(date +%s%N) - begun) / 100000))
	done | sort -n | sed -n 1p | sed 's/\(.\)$/.\1/'
}
unset PICKET_ONNXRUNTIME
one=$PWD/$release/picket-$version-linux-amd64 plain=$PWD/build/cross/amd64/picket
export CACHE_DIRECTORY=$work/cache # of systemd; root's own would be that of this machine
check "amd64 start to first score" "$(first "$plain")" 150 ms
check "amd64 start to first score, one file" "$(first "$one")" 150 ms
begun=$(date +%s%N)
CACHE_DIRECTORY=$work/cache2 "$one" scan --quiet testdata/gtp-u.pcap.gz || [ $? -eq 1 ]
check "amd64 … its very first start" "$((($(date +%s%N) - begun) / 1000000))" "" ms
check "amd64 … one file from memory" "$(CACHE_DIRECTORY='' HOME=/proc XDG_CACHE_HOME=/proc/no TMPDIR=/proc first unshare --user --map-root-user --mount sh -c \
	'mount -t tmpfs -o ro none /var/cache && exec "$0" "$@"' "$one")" "" ms

# Memory: idle, and when 1,000,000 SYNs from as many sources go by.
python3 - "$work/flood.pcap" <<'PY'
import struct, sys
head = bytes(12) + b"\x08\x00" + bytes([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0])
with open(sys.argv[1], "wb") as f:
    f.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
    for k in range(1_000_000):
        us, source = k * 10, k * 2654435761 & 0xFFFFFFFF
        f.write(struct.pack("<IIII", 1_700_000_000 + us // 1_000_000, us % 1_000_000, 54, 54) + head +
                struct.pack(">I4BHHII", source, 10, 0, 0, 1, 1024 + k % 60000, 80, source ^ 0x5BD1E995, 0) +
                b"\x50\x02" + bytes(6))
PY
peak() { # COMMAND...
	/usr/bin/time -f %M -o "$work/time" "$@" >/dev/null 2>"$work/stderr" || [ $? -eq 1 ] || { cat "$work/stderr" >&2; return; }
	awk 'END { printf "%.1f", $1 / 1024 }' "$work/time"
}
check "amd64 peak memory under a SYN flood" "$(peak "$plain" scan --json "$work/flood.pcap")" 96 MiB
check "amd64 … one file" "$(peak "$one" scan --json "$work/flood.pcap")" 96 MiB
idle() { # COMMAND...
	unshare --user --map-root-user --net bash -c '
		ip link set lo up
		state=$1; shift
		"$@" run -i lo --json --state-dir "$state" >/dev/null 2>"$state.log" &
		sleep 4
		awk "/^VmRSS/ { printf \"%.1f\", \$2 / 1024 }" /proc/$!/status || cat "$state.log" >&2
		kill $!
		wait $!' idle "$work/state" "$@"
}
mkdir "$work/state"
check "amd64 memory of the idle daemon" "$(idle "$plain")" 48 MiB
check "amd64 … one file" "$(idle "$one")" 48 MiB
exit $over
