#!/bin/sh
# Builds and packs a target twice, in folders of different names and the second time without any cache, and compares
# every file.
set -eu
cd "$(dirname "$0")/.."

target=$1
sh cross/zig.sh >/dev/null
tmp=$(mktemp -d)
trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
for copy in a "a longer name"; do
	at="$tmp/$copy"
	mkdir -p "$at/build/zig"
	git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$at" 2>/dev/null || :
	for d in build/zig/[0-9]*; do cp -a "$d" "$at/build/zig/"; done
	echo "building $target in $at"
	(cd "$at" && sh cross/build.sh "$target" >/dev/null)
	export GOCACHE="$tmp/cache"
done
for f in picket one/picket one/small; do
	cmp "$tmp/a/build/cross/$target/$f" "$tmp/a longer name/build/cross/$target/$f" || exit 1
	echo "same: $target/$f $(sha256sum "$tmp/a/build/cross/$target/$f" | cut -c1-16)…"
done
