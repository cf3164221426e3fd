#!/bin/sh
# Packs the targets that build.sh has built into build/release, lists their hashes in SHA256SUMS and signs the list:
#
#	MINISIGN_KEY=picket.key sh cross/release.sh TARGET...
#	RELEASE=DIR MINISIGN_KEY=picket.key sh cross/release.sh		lists and signs what is in DIR
set -eu
if [ -n "${MINISIGN_KEY:-}" ]; then
	MINISIGN_KEY=$(realpath "$MINISIGN_KEY")
	[ -r "$MINISIGN_KEY" ] || { echo "release.sh: there is no $MINISIGN_KEY" >&2; exit 1; }
	command -v minisign >/dev/null || { echo "release.sh: apt-get install minisign" >&2; exit 1; }
fi
release=$(realpath "${RELEASE:-$(dirname "$0")/../build/release}")
cd "$(dirname "$0")/.."

[ $# -eq 0 ] || rm -rf build/release
for target in "$@"; do
	sh cross/package.sh "$target"
	! grep -qs 'without fixes' "build/cross/$target/debian/done" ||
		echo "release.sh: $target holds libraries WITHOUT Debian's security fixes (DEBIAN_FIXES=optional)" >&2
done
[ $# -eq 0 ] || sh cross/integration.sh "$@"
cd "$release"
rm -f SHA256SUMS*
sums=$(sha256sum -- *)
echo "$sums" >SHA256SUMS
if [ -z "${MINISIGN_KEY:-}" ]; then
	echo "$release: $(wc -l <SHA256SUMS) files, UNSIGNED: MINISIGN_KEY names no key (see cross/README.md)"
	exit
fi
minisign -S -s "$MINISIGN_KEY" -m SHA256SUMS -t "picket ${VERSION:-devel}"
echo "$release: $(wc -l <SHA256SUMS) files, signed"
