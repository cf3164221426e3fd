#!/bin/sh
# Unpacks packages of a Debian release with all they depend on, for any architecture, without touching this machine's
# own package state:
#
#	sh cross/debian.sh RELEASE ARCH DIR PACKAGE...	leaves DIR/root and DIR/packages
#	sh cross/debian.sh mirror	prints the mirror of Debian that this machine uses
#
# A line of DIR/packages is name, version, SHA-256, source package and its version. apt finds the packages in the
# mirrors this machine uses for Debian and its security fixes, and checks them against Debian's signatures. Without a
# good mirror of the fixes it fails; with DEBIAN_FIXES=optional it says so and goes on. What DIR holds of the same is
# kept, however old, but nothing without the fixes where they are wanted.
set -eu

die() {
	echo "debian.sh: $*" >&2
	exit 1
}
mirror_of() { # NAME
	sed -n "s/^URIs: *\([^ ]*\/$1\)\/* *$/\1/p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\/$1\)\/* .*/\2/p" \
		/etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1
}
mirror=$(mirror_of debian) security=$(mirror_of debian-security)
[ -n "$mirror" ] || die "no mirror of Debian in /etc/apt/sources.list or sources.list.d"
if [ "$1" = mirror ]; then
	echo "$mirror"
	exit
fi

release=$1 arch=$2 dir=$3
shift 3
command -v apt-get >/dev/null || die "needs a Debian machine: apt-get is missing"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r $keys ] || die "apt-get install debian-archive-keyring"
stamp="$release $arch $*"
case $(cat "$dir/done" 2>/dev/null) in
"$stamp") exit 0 ;;
"$stamp, without fixes") [ "${DEBIAN_FIXES:-}" != optional ] || exit 0 ;;
esac

rm -rf "$dir"
mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial" "$dir/apt/empty" "$dir/root"
dir=$(cd "$dir" && pwd)
: >"$dir/apt/status"
main="deb [signed-by=$keys] $mirror $release main"
echo "$main" >"$dir/apt/sources.list"
[ -z "$security" ] || echo "deb [signed-by=$keys] $security $release-security main" >>"$dir/apt/sources.list"
apt() {
	apt-get -qq -o Dir::State="$dir/apt" -o Dir::State::status="$dir/apt/status" -o Dir::Cache="$dir/apt" \
		-o Dir::Etc::sourcelist="$dir/apt/sources.list" -o Dir::Etc::sourceparts="$dir/apt/empty" \
		-o Dir::Etc::preferencesparts="$dir/apt/empty" -o APT::Architecture="$arch" -o APT::Architectures="$arch" \
		-o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}
download() { apt update && apt -y -d --no-install-recommends install "$@"; }
fetch() { # once more after a while: names and mirrors fail for moments
	download "$@" || { sleep 10; download "$@"; }
}
if [ -z "$security" ] || ! said=$(fetch "$@" 2>&1); then
	said=$(echo "${said:-no debian-security in /etc/apt}" | head -n 1)
	[ "${DEBIAN_FIXES:-}" = optional ] ||
		die "Debian's security fixes of $release for $arch cannot be had (DEBIAN_FIXES=optional goes on without): $said"
	echo "debian.sh: $release for $arch comes without the fixes since its last point release: $said" >&2
	stamp="$stamp, without fixes"
	rm -rf "$dir/apt/lists" "$dir/apt/archives"
	mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial"
	echo "$main" >"$dir/apt/sources.list"
	fetch "$@" >&2
fi
for deb in "$dir"/apt/archives/*.deb; do
	# in parts, because /lib is a link in the older ones of a root and a folder in the newer
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$dir/root" --keep-directory-symlink
	sum=$(sha256sum "$deb" | cut -d' ' -f1)
	dpkg-deb --show --showformat "\${Package} \${Version} $sum \${source:Package} \${source:Version}\n" "$deb"
done >"$dir/packages"
rm -rf "$dir/apt"
echo "$stamp" >"$dir/done"
