#!/bin/sh
# Packs what build.sh made of a target into build/release: tar.gz, one file, deb, rpm, apk, ipk, SBOM.
#
#	sh cross/package.sh TARGET
#	sh cross/package.sh version	prints what the packages make of VERSION: deb's, rpm's and ipk's, and apk's
#
# deb and rpm of amd64 and arm64 use the system's C library. All else brings its own: apk and ipk are for systems with
# musl, and Debian's build of ONNX Runtime for armv7 and riscv64 needs a newer glibc than most boards have. Where the
# package's own compression is weak (apk and ipk know gzip only, nfpm's xz is a fifth larger) the small one file is in it.
set -eu
cd "$(dirname "$0")/.."

target=$1
nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0
version=${VERSION:-devel}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

# Packages want numbers: v1.2.3-rc1 is 1.2.3~rc1, which sorts before 1.2.3; v1.2.3-4-gabc is 1.2.3+4.gabc; a commit
# without a tag is 0.0.0 and its day.
day=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d)
case $version in
v[0-9]*.[0-9]* | [0-9]*.[0-9]*)
	numbers=$(echo "${version#v}" | sed 's/-\(alpha\|beta\|pre\|rc\)/~\1/; s/-/+/; s/-/./g') ;;
*) numbers=0.0.0+git$day.$(echo "$version" | tr -c '[:alnum:]\n' .) ;;
esac
apknumbers=$(echo "$numbers" | sed 's/~\([a-z]*\)\.\{0,1\}/_\1/; s/+git\([0-9]*\).*/_git\1/; s/+\([0-9]*\).*/_p\1/')
if [ "$target" = version ]; then
	echo "$numbers $apknumbers"
	exit
fi

# shellcheck source=/dev/null
. "cross/$target.sh"
in=build/cross/$target
out=build/release
tmp=build/cross/$target/stage
rm -rf "$tmp"
mkdir -p "$out" "$tmp/doc"

# What is the same for all: man pages and completions from a picket that runs here, config, licences.
host=build/cross/amd64/picket
[ -x "$host" ] || { echo "package.sh: build amd64 first: the man pages come from it" >&2; exit 1; }
go run ./cross/docs "$host" "$tmp/docs"
"$host" run --config-sample >"$tmp/picket.toml"
{
	cat cross/files/NOTICE
	go version -m "$in/picket" "$in"/one/launcher-* | awk '$1 == "dep" && !seen[$2]++ { print $2 "@" $3 }' | while read -r module; do
		dir=$(go mod download -json "$module" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
		printf '\n== %s\n\n' "$module"
		find "$dir" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' -o -iname 'patents' \) -exec cat {} + |
			grep . || { echo "package.sh: $module has no licence" >&2; exit 1; }
	done
} >"$tmp/doc/THIRD-PARTY"
cp LICENSE "$tmp/doc/LICENSE"

# with_folder DIR: the third parties of the folder's libraries.
with_folder() {
	for f in "$in"/debian/root/usr/share/doc/*/copyright; do
		printf '\n== %s (Debian)\n\n' "$(basename "$(dirname "$f")")"
		cat "$f"
	done >>"$1/THIRD-PARTY"
}

# archive DIR [OPTION]... NAME...: a tar.gz that is the same each time.
archive() { tar --format=gnu --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -c -C "$@" | gzip -9n; }

# tree DIR native|folder|one INIT: a file system.
tree() {
	mkdir -p "$1/etc/picket/conf.d" "$1/usr/bin" "$1/usr/lib/picket" "$1/usr/share/man/man1" "$1/usr/share/doc/picket" \
		"$1/usr/share/bash-completion/completions" "$1/usr/share/zsh/site-functions" "$1/usr/share/fish/vendor_completions.d"
	cp "$tmp/doc"/* "$1/usr/share/doc/picket/"
	case $2 in
	native)
		cp "$in/picket" "$1/usr/bin/picket"
		cp "$in/libonnxruntime.so" "$in/libonnxruntime.so.sha256" "$1/usr/lib/picket/"
		;;
	folder)
		cp cross/files/wrapper "$1/usr/bin/picket"
		cp "$in/folder"/* "$1/usr/lib/picket/"
		with_folder "$1/usr/share/doc/picket"
		;;
	one)
		cp "$in/one/small" "$1/usr/bin/picket"
		with_folder "$1/usr/share/doc/picket"
		;;
	esac
	case $3 in
	systemd)
		mkdir -p "$1/usr/lib/systemd/system"
		cp cross/files/picket.service "$1/usr/lib/systemd/system/"
		;;
	procd | openrc)
		mkdir -p "$1/etc/init.d"
		cp "cross/files/picket.$3" "$1/etc/init.d/picket"
		;;
	esac
	if [ "$3" != procd ]; then # OpenWrt has neither man nor these shells, and little flash
		for f in "$tmp"/docs/*.1; do gzip -9nc "$f" >"$1/usr/share/man/man1/$(basename "$f").gz"; done
		cp "$tmp/docs/picket.bash" "$1/usr/share/bash-completion/completions/picket"
		cp "$tmp/docs/_picket" "$1/usr/share/zsh/site-functions/"
		cp "$tmp/docs/picket.fish" "$1/usr/share/fish/vendor_completions.d/"
	else
		gzip -9nc "$1/usr/share/doc/picket/THIRD-PARTY" >"$tmp/THIRD-PARTY.gz"
		rm -rf "${1:?}/usr/share"
		mkdir -p "$1/usr/share/doc/picket"
		mv "$tmp/THIRD-PARTY.gz" "$1/usr/share/doc/picket/"
	fi
	find "$1" -type d -exec chmod 755 {} +
	find "$1" -type f -exec chmod u=rwX,go=rX {} +
	find "$1" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
}

# package FORMAT ARCH VERSION TREE
package() {
	PACKAGE_ARCH=$2 PACKAGE_VERSION=$3 PACKAGE_TREE=$4 \
		go run "$nfpm" package -f cross/nfpm.yaml -p "$1" -t "$out/" >/dev/null
}

touch -d "@$SOURCE_DATE_EPOCH" cross/files/* # apk tells the time of scripts, too
export PACKAGE_C='' PACKAGE_CXX=''
case $library in
debian) kind=folder ;;
*) kind=native ;;
esac
tree "$tmp/systemd" $kind systemd
if [ $kind = native ]; then PACKAGE_C='libc6 (>= 2.28)' PACKAGE_CXX='libstdc++6 (>= 8)'; fi
package deb "$debian" "$numbers" "$tmp/systemd"
deb=$PWD/$out/picket_${numbers}_$debian.deb
# nfpm names an empty conffile where there is none.
(cd "$tmp" && ar x "$deb" && gzip -d control.tar.gz && tar --delete -f control.tar ./conffiles && gzip -9n control.tar &&
	xz -9e -T1 data.tar && rm "$deb" && ar rcD "$deb" debian-binary control.tar.gz data.tar.xz)
if [ $kind = native ]; then PACKAGE_C='libc.so.6(GLIBC_2.28)(64bit)' PACKAGE_CXX='libstdc++.so.6(GLIBCXX_3.4.25)(64bit)'; fi
if [ $kind = folder ]; then
	rm -rf "$tmp/systemd"
	tree "$tmp/systemd" one systemd
fi
package rpm "$rpm" "$numbers" "$tmp/systemd"
PACKAGE_C='' PACKAGE_CXX=''
tree "$tmp/openrc" one openrc
package apk "$apk" "$apknumbers" "$tmp/openrc"
# OpenWrt has an architecture for every core; this runs on all of a kind, so opkg is not to ask.
tree "$tmp/procd" one procd
package ipk all "$numbers" "$tmp/procd"
# opkg looks for as many bytes as the control file says; nfpm says KiB, and knows nothing of what unpacks itself.
bytes=$(($(du -sb "$tmp/procd" | cut -f1) + $(du -sb "$in/folder" | cut -f1)))
mkdir -p "$tmp/ipk/control"
tar -xzf "$out/picket_${numbers}_all.ipk" -C "$tmp/ipk"
tar -xzf "$tmp/ipk/control.tar.gz" -C "$tmp/ipk/control"
sed -i "s/^Installed-Size: .*/Installed-Size: $bytes/" "$tmp/ipk/control/control"
archive "$tmp/ipk/control" . >"$tmp/ipk/control.tar.gz"
archive "$tmp/ipk" ./debian-binary ./control.tar.gz ./data.tar.gz >"$out/picket_${numbers}_$target.ipk"
rm "$out/picket_${numbers}_all.ipk"

# tarball NAME native|folder: a tar.gz of what was built, beside each other.
tarball() {
	top=$tmp/$1
	mkdir -p "$top"
	cp -r "$tmp/doc"/* "$tmp/docs" cross/files/picket.service "$tmp/picket.toml" "$top/"
	if [ "$2" = native ]; then
		cp "$in/picket" "$in/libonnxruntime.so" "$in/libonnxruntime.so.sha256" "$top/"
	else
		cp cross/files/wrapper "$top/picket"
		cp -r "$in/folder" "$top/lib"
		with_folder "$top"
	fi
	archive "$tmp" --mode=u=rwX,go=rX "$1" >"$out/$1.tar.gz"
}
name=picket-$version-linux-$target
tarball "$name" $kind
[ $kind = folder ] || tarball "$name-selfcontained" folder # for images with another C library

cp "$in/one/picket" "$out/$name"
go run ./cross/sbom "$in" "$version" "$goarch" >"$out/$name.cdx.json"
