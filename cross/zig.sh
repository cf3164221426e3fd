#!/bin/sh
# Puts a C compiler for all targets into build/zig, from PyPI's package of it, and prints its path. One pinned compiler
# makes the same bytes on every machine, and links against a glibc as old as asked for: Debian 12's cross compilers
# make programs that need glibc 2.34, too new for Debian 11.
set -eu
cd "$(dirname "$0")/.."

version=0.17.1
sha256=ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54 # the wheel for Linux on x86_64
dir=build/zig/$version
zig=$PWD/$dir/ziglang/zig

if [ ! -x "$zig" ]; then
	if [ "$(uname -m)" != x86_64 ]; then
		echo "zig.sh: cross builds are set up for x86_64 machines; set CROSS_CC to a compiler of your own" >&2
		exit 1
	fi
	if ! python3 -m pip --version >/dev/null 2>&1; then
		echo "zig.sh: the compiler for cross builds comes from PyPI: apt-get install python3-pip, or set CROSS_CC to a compiler of your own" >&2
		exit 1
	fi
	mkdir -p build/zig
	tmp=$(mktemp -d build/zig/.new.XXXXXX)
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 1' HUP INT TERM
	python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d "$tmp" "ziglang==$version" >&2
	echo "$sha256  $(echo "$tmp"/*.whl)" | sha256sum -c --quiet - >&2
	python3 -m zipfile -e "$tmp"/*.whl "$tmp/x"
	chmod +x "$tmp/x/ziglang/zig"
	mv -T "$tmp/x" "$dir" 2>/dev/null || [ -x "$zig" ]
fi
echo "$zig"
