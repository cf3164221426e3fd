#!/bin/sh
# Makes an OCI image of what release.sh made, without a container engine:
#
#	sh cross/oci.sh TARGET...	leaves build/oci/picket-VERSION-oci.tar
#
# A root file system holds the program, the C library that comes with it where its loader looks for it, ONNX Runtime,
# Debian's certificate authorities, and a user to become.
set -eu
cd "$(dirname "$0")/.."

version=${VERSION:-devel}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
die() {
	echo "oci.sh: $*" >&2
	exit 1
}
command -v readelf >/dev/null || die "apt-get install binutils"
out=build/oci
rm -rf "$out"
mkdir -p "$out"
sh cross/debian.sh trixie amd64 build/cross/certificates ca-certificates
certificates=build/cross/certificates/root/usr/share

roots=
for target in "$@"; do
	# shellcheck source=/dev/null
	. "cross/$target.sh"
	case $library in
	debian) name=picket-$version-linux-$target ;;
	*) name=picket-$version-linux-$target-selfcontained ;;
	esac
	[ -r "build/release/$name.tar.gz" ] || die "there is no build/release/$name.tar.gz: make release"
	tar -xzf "build/release/$name.tar.gz" -C "$out"
	from=$out/$name root=$out/$target
	loads=$(readelf -l "$from/lib/picket.bin" | sed -n 's/.*interpreter: \(.*\)]/\1/p')
	[ -n "$loads" ] || die "$target: picket.bin names no loader"
	mkdir -p "$root/usr/bin" "$root/usr/lib/picket" "$root/usr/lib/$multiarch" "$root${loads%/*}" "$root/etc/picket" \
		"$root/etc/ssl/certs" "$root/usr/share/doc/picket" "$root/var/lib/picket" "$root/tmp"
	mv "$from/lib/picket" "$root$loads"
	mv "$from/lib/picket.bin" "$root/usr/bin/picket"
	mv "$from/lib/libonnxruntime.so" "$from/lib/libonnxruntime.so.sha256" "$root/usr/lib/picket/"
	mv "$from/lib"/* "$root/usr/lib/$multiarch/"
	mv "$from/LICENSE" "$from/THIRD-PARTY" "$root/usr/share/doc/picket/"
	mv "$from/picket.toml" "$root/etc/picket/"
	cat "$certificates/ca-certificates/mozilla"/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"
	cp "$certificates/doc/ca-certificates/copyright" "$root/usr/share/doc/picket/ca-certificates"
	printf 'root:x:0:0::/:\npicket:x:10000:10000::/var/lib/picket:\n' >"$root/etc/passwd"
	printf 'root:x:0:\npicket:x:10000:\n' >"$root/etc/group"
	rm -rf "$from"
	roots="$roots $target=$root"
done
# shellcheck disable=SC2086
go run ./cross/oci "$out/picket-$version-oci.tar" "$version" $roots
(cd "$out" && rm -rf -- "$@" && sha256sum "picket-$version-oci.tar" >SHA256SUMS)
echo "$out/picket-$version-oci.tar: $(stat -c %s "$out/picket-$version-oci.tar") bytes, $*"
