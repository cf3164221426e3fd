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
# without a tag is 0.0.0 and its time to the second. apk 2 reads a number into 32 bits, so there the time has two.
time=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S)
case $version in
v[0-9]*.[0-9]* | [0-9]*.[0-9]*)
	numbers=$(echo "${version#v}" | sed 's/-\(alpha\|beta\|pre\|rc\)/~\1/; s/-/+/; s/-/./g') ;;
*) numbers=0.0.0+git$time.$(echo "$version" | tr -c '[:alnum:]\n' .) ;;
esac
apknumbers=$(echo "$numbers" | sed 's/~\([a-z]*\)\.\{0,1\}/_\1/; s/+git\([0-9]\{8\}\)\([0-9]*\).*/_git\1_p\2/; s/+\([0-9]*\).*/_p\1/')
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
mkdir -p "$out" "$tmp"

# What is the same for all: man pages and completions from a picket that runs here, and the config.
host=build/cross/amd64/picket
[ -x "$host" ] || { echo "package.sh: build amd64 first: the man pages come from it" >&2; exit 1; }
go run ./cross/docs "$host" "$tmp/docs"
"$host" run --config-sample >"$tmp/picket.toml"
# archive DIR [OPTION]... NAME...: a tar.gz that is the same each time.
archive() { tar --format=gnu --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -c -C "$@" | gzip -9n; }

# tree DIR native|folder|one deb|rpm|apk|ipk: a file system.
tree() {
	doc=$1/usr/share/doc/picket
	mkdir -p "$1/etc/picket/conf.d" "$1/usr/bin" "$1/usr/lib/picket" "$doc"
	cp LICENSE "$doc/"
	case $2 in
	native)
		cp "$in/picket" "$1/usr/bin/picket"
		cp "$in/libonnxruntime.so" "$in/libonnxruntime.so.sha256" "$1/usr/lib/picket/"
		gzip -9nc "$in/THIRD-PARTY" >"$doc/THIRD-PARTY.gz"
		;;
	folder)
		cp cross/files/wrapper "$1/usr/bin/picket"
		cp "$in/folder"/* "$1/usr/lib/picket/"
		;;
	one)
		cp "$in/one/small" "$1/usr/bin/picket"
		;;
	esac
	[ "$2" = native ] || gzip -9nc "$in/THIRD-PARTY.folder" >"$doc/THIRD-PARTY.gz"
	case $3 in
	deb | rpm)
		mkdir -p "$1/usr/lib/systemd/system"
		cp cross/files/picket.service "$1/usr/lib/systemd/system/"
		;;
	apk)
		mkdir -p "$1/etc/init.d"
		cp cross/files/picket.openrc "$1/etc/init.d/picket"
		;;
	ipk)
		mkdir -p "$1/etc/init.d" "$1/lib/upgrade/keep.d"
		cp cross/files/picket.procd "$1/etc/init.d/picket"
		echo /etc/picket/ >"$1/lib/upgrade/keep.d/picket" # config and queue outlive a sysupgrade
		cp "$in/one/nohtml" "$1/usr/bin/picket"
		;;
	esac
	if [ "$3" = deb ]; then
		rm "$doc/LICENSE"
		printf 'Picket, https://github.com/picket-ids/picket\nCopyright: the Picket developers\nLicense: Apache-2.0, see %s\n%s\n' \
			/usr/share/common-licenses/Apache-2.0 "Third parties: see THIRD-PARTY.gz." >"$doc/copyright"
		printf 'picket (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md of this version.\n\n -- %s  %s\n' \
			"$numbers" "$(sed -n 's/^maintainer: //p' cross/nfpm.yaml)" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" |
			gzip -9n >"$doc/changelog.gz"
		if [ "$2" = folder ]; then
			mkdir -p "$1/usr/share/lintian/overrides"
			cp cross/files/lintian-overrides "$1/usr/share/lintian/overrides/picket"
		fi
	fi
	if [ "$3" != ipk ]; then # OpenWrt has neither man nor these shells, and little flash
		mkdir -p "$1/usr/share/man/man1" "$1/usr/share/bash-completion/completions" "$1/usr/share/zsh/site-functions" \
			"$1/usr/share/fish/vendor_completions.d"
		for f in "$tmp"/docs/*.1; do gzip -9nc "$f" >"$1/usr/share/man/man1/$(basename "$f").gz"; done
		cp "$tmp/docs/picket.bash" "$1/usr/share/bash-completion/completions/picket"
		cp "$tmp/docs/_picket" "$1/usr/share/zsh/site-functions/"
		cp "$tmp/docs/picket.fish" "$1/usr/share/fish/vendor_completions.d/"
	fi
	find "$1" -type f -exec chmod u=rwX,go=rX {} +
	find "$1" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
}

# package FORMAT ARCH VERSION TREE. Each file is named, because of a tree nfpm passes on Go's mode bits (ModeDir), which
# no archive knows. Of the directories only Picket's own are named.
package() {
	{
		cat cross/nfpm.yaml
		(cd "$4" && find . -type d -path '*/picket*' -printf '  - {dst: /%P, type: dir, file_info: {mode: 0755}}\n' | sort)
		(cd "$4" && find . -type f -printf "  - {src: $4/%P, dst: /%P, file_info: {mode: 0%m}}\n" | sort)
	} >"$tmp/nfpm.yaml"
	PACKAGE_ARCH=$2 PACKAGE_VERSION=$3 go run "$nfpm" package -f "$tmp/nfpm.yaml" -p "$1" -t "$out/" >/dev/null
}

touch -d "@$SOURCE_DATE_EPOCH" cross/files/* # apk tells the time of scripts, too
export PACKAGE_C='' PACKAGE_CXX=''
case $library in
debian) kind=folder ;;
*) kind=native ;;
esac
tree "$tmp/deb" $kind deb
if [ $kind = native ]; then PACKAGE_C='libc6 (>= 2.28)' PACKAGE_CXX='libstdc++6 (>= 8)'; fi
package deb "$debian" "$numbers" "$tmp/deb"
deb=$PWD/$out/picket_${numbers}_$debian.deb
# nfpm names an empty conffile where there is none.
(cd "$tmp" && ar x "$deb" && gzip -d control.tar.gz && tar --delete -f control.tar ./conffiles && gzip -9n control.tar &&
	xz -9e -T1 data.tar && rm "$deb" && ar rcD "$deb" debian-binary control.tar.gz data.tar.xz)
if [ $kind = native ]; then PACKAGE_C='libc.so.6(GLIBC_2.28)(64bit)' PACKAGE_CXX='libstdc++.so.6(GLIBCXX_3.4.25)(64bit)'; fi
case $kind in
native) tree "$tmp/rpm" native rpm ;;
folder) tree "$tmp/rpm" one rpm ;;
esac
package rpm "$rpm" "$numbers" "$tmp/rpm"
PACKAGE_C='' PACKAGE_CXX=''
tree "$tmp/apk" one apk
package apk "$apk" "$apknumbers" "$tmp/apk"
# OpenWrt has an architecture for every core; this runs on all of a kind, so opkg is not to ask.
tree "$tmp/ipk" one ipk
package ipk all "$numbers" "$tmp/ipk"
# opkg looks for as many bytes as the control file says; nfpm says KiB, and knows nothing of what unpacks itself.
bytes=$(($(du -sb "$tmp/ipk" | cut -f1) + $(du -sb "$in/folder-nohtml" | cut -f1)))
mkdir -p "$tmp/parts/control"
tar -xzf "$out/picket_${numbers}_all.ipk" -C "$tmp/parts"
tar -xzf "$tmp/parts/control.tar.gz" -C "$tmp/parts/control"
sed -i "s/^Installed-Size: .*/Installed-Size: $bytes/" "$tmp/parts/control/control"
archive "$tmp/parts/control" . >"$tmp/parts/control.tar.gz"
archive "$tmp/parts" ./debian-binary ./control.tar.gz ./data.tar.gz >"$out/picket_${numbers}_$target.ipk"
rm "$out/picket_${numbers}_all.ipk"

# tarball NAME native|folder: a tar.gz of what was built, beside each other.
tarball() {
	top=$tmp/$1
	mkdir -p "$top"
	cp -r LICENSE "$tmp/docs" cross/files/picket.service "$tmp/picket.toml" "$top/"
	if [ "$2" = native ]; then
		cp "$in/picket" "$in/libonnxruntime.so" "$in/libonnxruntime.so.sha256" "$in/THIRD-PARTY" "$top/"
	else
		cp cross/files/wrapper "$top/picket"
		cp -r "$in/folder" "$top/lib"
		cp "$in/THIRD-PARTY.folder" "$top/THIRD-PARTY"
	fi
	archive "$tmp" --mode=u=rwX,go=rX "$1" >"$out/$1.tar.gz"
}
name=picket-$version-linux-$target
tarball "$name" $kind
[ $kind = folder ] || tarball "$name-selfcontained" folder # for images with another C library

cp "$in/one/picket" "$out/$name"
go run ./cross/sbom "$in" "$version" "$goarch" >"$out/$name.cdx.json"
