#!/bin/sh
# Builds and packs a target twice, in folders of different names and the second time without Go's cache, and compares
# every file of the release.
set -eu
cd "$(dirname "$0")/.."

target=$1
sh cross/zig.sh >/dev/null
tmp=$(mktemp -d)
trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
[ -x build/cross/amd64/picket ] || sh cross/build.sh amd64 >/dev/null # says what stands in the man pages
mkdir -p "$tmp/a/build/zig"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$tmp/a" 2>/dev/null || :
for d in build/zig/[0-9]*; do cp -a "$d" "$tmp/a/build/zig/"; done
[ "$target" = amd64 ] || cp --parents build/cross/amd64/picket "$tmp/a"
# Debian's libraries are given, like the compiler: a mirror may change between the two.
[ ! -e "build/cross/$target/debian/done" ] || cp -a --parents "build/cross/$target/debian" "$tmp/a"
cp -a "$tmp/a" "$tmp/a longer name"
for copy in a "a longer name"; do
	echo "building and packing $target in $tmp/$copy"
	(cd "$tmp/$copy" && sh cross/build.sh "$target" >/dev/null && sh cross/release.sh "$target" >/dev/null)
	export GOCACHE="$tmp/cache"
done
diff -r "$tmp/a/build/release" "$tmp/a longer name/build/release"
sed 's/^/same: /' "$tmp/a/build/release/SHA256SUMS"
