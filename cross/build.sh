#!/bin/sh
# Builds one target:
#
#	sh cross/build.sh TARGET	leaves in build/cross/TARGET:
#
#	picket, libonnxruntime.so(.sha256)	program and library (amd64, arm64), for systems with glibc 2.28 or newer
#	folder/				the same with a glibc of their own, for all other systems
#	folder-nohtml/			the same with a program that writes no HTML report, for OpenWrt
#	one/picket			folder/ and its licences in one file that is quick to unpack
#	one/small, one/nohtml		folder/ and folder-nohtml/ in one small file, for packages
#	THIRD-PARTY(.folder)		licences of program and library; and of all in folder/
#	onnxruntime.version		of the library, as the library itself says
#
# VERSION is stamped into the program; CROSS_CC is a compiler to use instead of zig's.
set -eu
cd "$(dirname "$0")/.."

target=$1
die() {
	echo "cross-$target: $*" >&2
	exit 1
}
[ -r "cross/$target.sh" ] || die "no such target: there is no cross/$target.sh"
# shellcheck source=/dev/null
. "cross/$target.sh"
for tool in go readelf objdump xz zstd; do
	command -v "$tool" >/dev/null || die "$tool is missing: apt-get install golang binutils xz-utils zstd"
done
out=build/cross/$target
mkdir -p "$out"

# The program. No Parquet: it is for training and costs 7 MB. CGO_CFLAGS without -g: with it the C part's debug
# information, and so this folder's name, would be in the file.
compiler=${CROSS_CC:-}
if [ -z "$compiler" ]; then
	compiler="'$(sh cross/zig.sh)' cc -target $cc"
	export ZIG_GLOBAL_CACHE_DIR="$PWD/build/zig/cache" ZIG_LOCAL_CACHE_DIR="$PWD/build/zig/cache"
fi
program() { # FILE TAGS
	CGO_ENABLED=1 GOOS=linux GOARCH=$goarch GOARM=$goarm CC=$compiler CGO_CFLAGS=-O2 \
		go build -tags "noparquet,nethttpomithttp2$2" -trimpath -buildvcs=false \
		-ldflags "-s -w -buildid= -extldflags=-Wl,-s -X main.version=${VERSION:-devel}" -o "$1" ./cmd/picket
}
program "$out/picket" ""
newest=$(objdump -T "$out/picket" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
oldest=GLIBC_2.${cc##*.}
[ "$(printf '%s\n' "$newest" "$oldest" | sort -V | tail -n 1)" = "$oldest" ] ||
	die "the program needs $newest, newer than $oldest"

# The library.
case $library in
debian)
	sh cross/debian.sh trixie "$debian" "$out/debian" libonnxruntime1.21
	found=$(echo "$out/debian/root/usr/lib/$multiarch"/libonnxruntime.so.1.*.*)
	echo "$sha256  $found" | sha256sum -c --quiet - || die "Debian's library is another one than cross/$target.sh says"
	;;
*)
	sh cross/debian.sh trixie "$debian" "$out/debian" libstdc++6
	sh "cross/$library" "$out" "$debian" >/dev/null
	[ ! -L "$out/libonnxruntime.so" ] || die "an installed libonnxruntime is no part of a delivery: uninstall it"
	found=$out/libonnxruntime.so
	;;
esac

# Its version: its symbols have its beginning (VERS_1.21 in Debian's), and one of its strings is the whole.
version=$(readelf -VW "$found" | grep -o 'VERS_[0-9.]*' | sed -n '1s/VERS_//p')
tr '\0' '\n' <"$found" | grep -axE "$version(\.[0-9]+)?" | sort -u >"$out/onnxruntime.version"
[ "$(wc -w <"$out/onnxruntime.version")" -eq 1 ] ||
	die "which version is $found? $version, $(tr '\n' ' ' <"$out/onnxruntime.version")"

# The folder: program, library, and what these need, by name.
rm -rf "$out/folder" "$out"/folder-*
mkdir -p "$out/folder"
cp "$out/picket" "$out/folder/picket.bin"
cp "$found" "$out/folder/libonnxruntime.so"
lib() {
	for d in "usr/lib/$multiarch" "lib/$multiarch" lib usr/lib; do
		[ ! -e "$out/debian/root/$d/$1" ] || { echo "$out/debian/root/$d/$1"; return; }
	done
	die "no $1 in Debian's packages"
}
todo="picket.bin libonnxruntime.so"
while [ -n "$todo" ]; do
	next=
	for f in $todo; do
		for need in $(readelf -d "$out/folder/$f" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
			[ "$need" != "$loader" ] || continue
			[ ! -e "$out/folder/$need" ] || continue
			cp -L "$(lib "$need")" "$out/folder/$need"
			next="$next $need"
		done
	done
	todo=$next
done
cp -L "$(lib "$loader")" "$out/folder/picket"
chmod 755 "$out/folder/picket" "$out/folder/picket.bin"
(cd "$out/folder" && sha256sum libonnxruntime.so >libonnxruntime.so.sha256)

# One file: one that is quick to unpack, and small ones for packages. What unpacks them knows windows up to 8 MiB.
mkdir -p "$out/one"
for launcher in zstd xz; do
	CGO_ENABLED=0 GOOS=linux GOARCH=$goarch GOARM=$goarm go build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' \
		-o "$out/one/launcher-$launcher" "./cross/onefile/launcher/$launcher"
done
sh cross/licences.sh "$target"
cp -al "$out/folder" "$out/folder-one"
gzip -9nc "$out/THIRD-PARTY.folder" >"$out/folder-one/THIRD-PARTY.gz"
cp -al "$out/folder" "$out/folder-nohtml"
rm "$out/folder-nohtml/picket.bin"
program "$out/folder-nohtml/picket.bin" ,nohtml
one() { # NAME FOLDER COMPRESSION COMMAND...
	name=$1 folder=$2 launcher=$out/one/launcher-$3
	shift 3
	go run ./cross/onefile/pack "$out/one/$name" "$launcher" "$out/$folder" "$@"
}
one picket folder-one zstd zstd -q -T1 -19 &
# shellcheck disable=SC2086
one small folder xz xz -T1 --check=crc32 $xz
# shellcheck disable=SC2086
one nohtml folder-nohtml xz xz -T1 --check=crc32 $xz
wait $!
size() { stat -c %s "$out/one/$1"; }
echo "$out: picket $(stat -c %s "$out/picket"), folder $(du -sb "$out/folder" | cut -f1), one file $(size picket)," \
	"small $(size small), without HTML $(size nohtml) bytes"
