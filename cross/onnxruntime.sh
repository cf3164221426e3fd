#!/bin/sh
# Puts ONNX Runtime's shared library where the build and the tests look for it:
#
#	sh cross/onnxruntime.sh DIR [ARCH]	leaves DIR/libonnxruntime.so, prints one line
#
# An installed library of version 1.21 or newer is linked to. Otherwise 1.22.0 is taken from a package
# registry, must have a hash listed in onnxruntime.sha256 beside this script, and gets that hash
# beside it, in libonnxruntime.so.sha256, which picket checks before it loads the library. With it comes
# ThirdPartyNotices.txt, the licences of what is linked into it.
#
# 1.22.0, because on ARM 1.21.0 dies of an illegal instruction on Cortex-A53, A57 and A72 (microsoft/onnxruntime
# issues 23957 and 24112), and because npm has it, too, which lacks 1.22.1. 1.26.0 scores random forests wrongly.
# Both appear by rename, so runs side by side do no harm; a second run downloads nothing.
set -eu

version=1.22.0
table=$(dirname "$0")/onnxruntime.sha256

die() {
	echo "onnxruntime.sh: $*" >&2
	exit 1
}

goarch() {
	case $1 in
	amd64 | x86_64) echo amd64 ;;
	arm64 | aarch64) echo arm64 ;;
	arm | armhf | armv7*) echo armhf ;;
	riscv64) echo riscv64 ;;
	*) die "no ONNX Runtime is known for $1 (amd64, arm64, armhf, riscv64)" ;;
	esac
}

case $# in
1 | 2) ;;
*) die "usage: onnxruntime.sh DIR [ARCH]" ;;
esac
dir=$1
lib=$dir/libonnxruntime.so
host=$(goarch "$(uname -m)")
arch=$(goarch "${2:-$host}")
mkdir -p "$dir"

sha() { sha256sum "$1" | cut -d' ' -f1; }

# source_of SHA: the source that the table gives for a library of this architecture, or nothing.
source_of() { awk -v h="$1" -v a="$arch" '$1 == h && $2 == a { print $4 }' "$table"; }

# recent FILE: is it a library of 1.21 or newer, on arm64 of 1.22? Its symbols carry the version, or its name does.
recent() {
	v=$(grep -ao 'VERS_1\.[0-9][0-9]*' "$1" | head -n 1)
	[ -n "$v" ] || v=$(readlink -f "$1" | grep -o '\.so\.1\.[0-9][0-9]*' || :)
	least=21
	[ "$arch" != arm64 ] || least=22
	[ "${v##*.}" -ge $least ] 2>/dev/null
}

# Already there?
if [ -L "$lib" ] && [ "$arch" = "$host" ] && [ -e "$lib" ]; then
	echo "$lib: the installed $(readlink "$lib")"
	exit
fi
if [ -f "$lib" ] && [ ! -L "$lib" ] && [ -f "$lib.sha256" ]; then
	h=$(sha "$lib")
	if [ -n "$(source_of "$h")" ] && [ "$h" = "$(cut -d' ' -f1 "$lib.sha256")" ]; then
		echo "$lib: ONNX Runtime $version, $arch"
		exit
	fi
fi

tmp=$(mktemp -d "$dir/.onnxruntime.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

# Installed?
if [ "$arch" = "$host" ]; then
	for f in $(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | awk '$1 ~ /^libonnxruntime\.so/ { print $NF }') \
		/usr/local/lib/libonnxruntime.so* /usr/lib/*/libonnxruntime.so* \
		/usr/lib64/libonnxruntime.so* /usr/lib/libonnxruntime.so*; do
		if [ -f "$f" ] && recent "$f"; then
			ln -s "$f" "$tmp/link"
			rm -f "$lib.sha256"
			mv -f "$tmp/link" "$lib"
			echo "$lib: the installed $f"
			exit
		fi
	done
fi

# Each from_ leaves the library in $tmp/lib or fails; what the tools said is in $tmp/log. pip goes first: its package
# is a tenth of npm's, which carries all platforms.
# shellcheck disable=SC2317 # called by name
from_pip() {
	python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
		--implementation cp --python-version 311 --abi cp311 \
		--platform "manylinux_2_27_$machine" --platform "manylinux_2_28_$machine" \
		-d "$tmp" "onnxruntime==$version" &&
		python3 -m zipfile -e "$tmp"/onnxruntime-*.whl "$tmp/wheel" &&
		mv "$tmp/wheel/onnxruntime/capi/libonnxruntime.so.$version" "$tmp/lib" &&
		mv "$tmp/wheel/onnxruntime/ThirdPartyNotices.txt" "$tmp/notices"
}

# npm's package has no notices, so that a release, which needs them, is made with pip.
# shellcheck disable=SC2317
from_npm() {
	(cd "$tmp" && npm pack --silent "onnxruntime-node@$version" &&
		tar -xzf "onnxruntime-node-$version.tgz" "package/bin/napi-v6/linux/$npm" &&
		mv "package/bin/napi-v6/linux/$npm/libonnxruntime.so.1" lib)
}

case $arch in
amd64) machine=x86_64 npm=x64 ;;
arm64) machine=aarch64 npm=arm64 ;;
*)
	[ "$arch" = "$host" ] && die "ONNX Runtime for $arch comes with Debian 13: apt-get install libonnxruntime1.21"
	die "ONNX Runtime for $arch is not fetched on another machine; on the board, Debian 13: apt-get install libonnxruntime1.21"
	;;
esac

has() {
	case $1 in
	pip) python3 -m pip --version ;;
	*) command -v "$1" ;;
	esac >/dev/null 2>&1
}

tried=
for s in pip npm; do
	has "$s" || continue
	tried="$tried $s"
	rm -f "$tmp/lib"
	"from_$s" >>"$tmp/log" 2>&1 || continue
	h=$(sha "$tmp/lib")
	[ "$(source_of "$h")" = "$s" ] || die "the library from $s has SHA-256 $h, which is not in $table"
	chmod 644 "$tmp/lib"
	echo "$h  libonnxruntime.so" >"$tmp/sum"
	rm -f "$lib.sha256"
	[ ! -e "$tmp/notices" ] || mv -f "$tmp/notices" "$dir/ThirdPartyNotices.txt"
	mv -f "$tmp/lib" "$lib"
	mv -f "$tmp/sum" "$lib.sha256"
	echo "$lib: ONNX Runtime $version, $arch, from $s"
	exit
done
[ -n "$tried" ] || die "to fetch ONNX Runtime for $arch, install python3 with pip (apt-get install python3-pip), or npm; or install libonnxruntime 1.21 or newer"
die "ONNX Runtime for $arch could not be fetched with$tried: $(tail -n 1 "$tmp/log")"
