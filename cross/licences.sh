#!/bin/sh
# Gathers the licences of what build.sh puts into a target's deliveries:
#
#	sh cross/licences.sh TARGET	leaves in build/cross/TARGET:
#
#	THIRD-PARTY		of the program's modules and of ONNX Runtime, with its third-party notices
#	THIRD-PARTY.folder	the same, and of the C library and the other Debian libraries in the folder
#
# ONNX Runtime's notices came with the library; Debian's has none, so for it they are those of the same version's
# package on PyPI, and stay in build/notices.
set -eu
cd "$(dirname "$0")/.."

target=$1
die() {
	echo "licences.sh: $*" >&2
	exit 1
}
in=build/cross/$target
version=$(cat "$in/onnxruntime.version")
notices=$in/ThirdPartyNotices.txt
[ -s "$notices" ] || notices=build/notices/onnxruntime-$version.txt
if [ ! -s "$notices" ]; then
	mkdir -p build/notices
	tmp=$(mktemp -d build/notices/.new.XXXXXX)
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 1' HUP INT TERM
	python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
		--implementation cp --python-version 312 --abi cp312 \
		--platform manylinux_2_27_x86_64 --platform manylinux_2_28_x86_64 -d "$tmp" "onnxruntime==$version" >&2 ||
		die "no package onnxruntime $version on PyPI, which holds its third-party notices"
	python3 -m zipfile -e "$tmp"/onnxruntime-*.whl "$tmp/wheel"
	mv "$tmp/wheel/onnxruntime/ThirdPartyNotices.txt" "$notices"
fi

{
	cat cross/files/NOTICE
	printf '\n== ONNX Runtime %s: third-party notices\n\n' "$version"
	tr -d '\r' <"$notices"
	printf '\n== Go, its standard library and runtime\n\n'
	cat "$(go env GOROOT)/LICENSE"
	go version -m "$in/picket" "$in"/one/launcher-* | awk '$1 == "dep" && !seen[$2]++ { print $2 "@" $3 }' |
		while read -r module; do
			dir=$(go mod download -json "$module" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
			printf '\n== %s\n\n' "$module"
			find "$dir" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \
				-o -iname 'patents' \) -exec cat {} + | grep . || die "$module has no licence"
		done
} >"$in/THIRD-PARTY"

# Debian's copyright files refer to the texts of the usual licences, which a board may not have.
copyrights=$in/debian/root/usr/share/doc
{
	cat "$in/THIRD-PARTY"
	printf '\n== Libraries of Debian\n\n'
	echo "The C library and the libraries beside it are Debian's, unchanged. The sources of these versions are in Debian's"
	echo "archive (library, its version, source package, its version):"
	cut -d' ' -f1,2,4,5 "$in/debian/packages"
	for f in "$copyrights"/*/copyright; do
		printf '\n== %s (Debian)\n\n' "$(basename "$(dirname "$f")")"
		cat "$f"
	done
	cat "$copyrights"/*/copyright | grep -o '/usr/share/common-licenses/[A-Za-z0-9.-]*[A-Za-z0-9]' |
		xargs -d '\n' readlink -f | sort -u | while read -r f; do
		[ -r "$f" ] || die "$f is missing: apt-get install --reinstall base-files"
		printf '\n== %s\n\n' "$f"
		cat "$f"
	done
} >"$in/THIRD-PARTY.folder"
