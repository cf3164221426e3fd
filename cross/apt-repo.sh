#!/bin/sh
# Puts the .debs of build/release into a static apt repository and signs it:
#
#	APT_KEY=KEYID sh cross/apt-repo.sh [DIR]	default build/apt
#
# APT_KEY names a secret key of gpg's. A DIR that is there is added to, so that older versions stay to be had. Serve DIR
# with any web server; picket.sources in it tells how apt finds it.
set -eu
die() {
	echo "apt-repo.sh: $*" >&2
	exit 1
}
[ -n "${APT_KEY:-}" ] || die "APT_KEY names no key (gpg --list-secret-keys)"
for tool in apt-ftparchive:apt-utils gpg:gnupg dpkg-deb:dpkg; do
	command -v "${tool%%:*}" >/dev/null || die "apt-get install ${tool##*:}"
done
gpg --batch --list-secret-keys "$APT_KEY" >/dev/null 2>&1 || die "gpg has no secret key $APT_KEY"
dir=${1:-$(dirname "$0")/../build/apt}
release=$(realpath "$(dirname "$0")/../build/release")
set -- "$release"/*.deb
[ -e "$1" ] || die "there is no .deb in build/release: make release"
mkdir -p "$dir/pool/main/p/picket"
cd "$dir"
for deb in "$@"; do
	to=pool/main/p/picket/${deb##*/}
	# The same version with other content would not reach those who have it.
	[ ! -e "$to" ] || cmp -s "$deb" "$to" || die "$to is there, and another: publish a new version"
	cp "$deb" "$to"
done

rm -rf dists.new
architectures=$(for deb in pool/main/p/picket/*.deb; do dpkg-deb -f "$deb" Architecture; done | sort -u)
for arch in $architectures; do
	to=dists.new/stable/main/binary-$arch
	mkdir -p "$to"
	apt-ftparchive --arch "$arch" packages pool >"$to/Packages"
	gzip -9nk "$to/Packages"
	# Under the name of its hash, too, and so the last ones: while the repository is replaced, apt finds what the InRelease
	# that it has read names.
	mkdir -p "$to/by-hash/SHA256"
	for f in "$to"/Packages* "dists/${to#*/}"/Packages*; do
		[ ! -e "$f" ] || cp "$f" "$to/by-hash/SHA256/$(sha256sum "$f" | cut -d' ' -f1)"
	done
done
apt-ftparchive -o APT::FTPArchive::Release::Origin=Picket -o APT::FTPArchive::Release::Label=Picket \
	-o APT::FTPArchive::Release::Suite=stable -o APT::FTPArchive::Release::Codename=stable \
	-o APT::FTPArchive::Release::Components=main -o APT::FTPArchive::Release::Acquire-By-Hash=yes \
	-o APT::FTPArchive::Release::Architectures="$(echo "$architectures" | tr '\n' ' ' | sed 's/ $//')" \
	-o APT::FTPArchive::MD5=false -o APT::FTPArchive::SHA1=false -o APT::FTPArchive::SHA512=false \
	release dists.new/stable >Release.new
mv Release.new dists.new/stable/Release
gpg --batch --yes --local-user "$APT_KEY" --clearsign -o dists.new/stable/InRelease dists.new/stable/Release
gpg --batch --yes --local-user "$APT_KEY" --armor --detach-sign -o dists.new/stable/Release.gpg dists.new/stable/Release
gpg --batch --yes --export "$APT_KEY" >picket.gpg
cat >picket.sources <<-SOURCES
	Types: deb
	URIs: ${APT_URL:-https://CHANGE.ME/apt}
	Suites: stable
	Components: main
	Signed-By: /usr/share/keyrings/picket.gpg
SOURCES
rm -rf dists.old
[ ! -e dists ] || mv dists dists.old
mv dists.new dists
rm -rf dists.old
echo "$PWD: $(find pool -name '*.deb' | wc -l) packages for $(echo "$architectures" | tr '\n' ' ')signed by $APT_KEY"
