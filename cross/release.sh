#!/bin/sh
# Packs the targets that build.sh has built into build/release, lists their hashes in SHA256SUMS and signs the list:
#
#	MINISIGN_KEY=picket.key sh cross/release.sh TARGET...
set -eu
cd "$(dirname "$0")/.."

rm -rf build/release
for target in "$@"; do
	sh cross/package.sh "$target"
done
cd build/release
sha256sum -- * >../SHA256SUMS
mv ../SHA256SUMS .
if [ -z "${MINISIGN_KEY:-}" ]; then
	echo "build/release: $(wc -l <SHA256SUMS) files, UNSIGNED: MINISIGN_KEY names no key (see cross/README.md)"
	exit
fi
command -v minisign >/dev/null || { echo "release.sh: apt-get install minisign" >&2; exit 1; }
minisign -S -s "$MINISIGN_KEY" -m SHA256SUMS -t "picket ${VERSION:-devel}"
echo "build/release: $(wc -l <SHA256SUMS) files, signed"
