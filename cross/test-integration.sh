#!/bin/bash
# Tests what integrators get, from what release.sh left in build/release: the apt repository, the OCI image, and the
# recipes for Yocto, Buildroot and OpenWrt as far as they can be run without these build systems:
#
#	bash cross/test-integration.sh amd64 arm64 armv7 riscv64
#
# Needs root, for containers and init scripts; it runs in mount and network namespaces of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
	echo "test-integration: $*" >&2
	exit 1
}
if [ -z "${PICKET_NAMESPACE:-}" ]; then
	[ "$(id -u)" = 0 ] || die "needs root"
	for need in apt-ftparchive:apt-utils gpg:gpg skopeo:skopeo umoci:umoci runc:runc kconfig-conf:kconfig-frontends-nox \
		qemu-aarch64-static:qemu-user-static mosquitto:mosquitto mosquitto_sub:mosquitto-clients ip:iproute2 python3:python3-venv; do
		command -v "${need%%:*}" >/dev/null || [ -x "/usr/sbin/${need%%:*}" ] || die "${need%%:*} is missing: apt-get install ${need##*:}"
	done
	sh cross/debian.sh bullseye amd64 build/cross/amd64/system libstdc++6 dash coreutils
	sh cross/debian.sh bullseye amd64 build/cross/amd64/busybox busybox-static
	if [ ! -e build/bitbake/done ]; then
		python3 -m venv build/bitbake
		build/bitbake/bin/pip install -q --disable-pip-version-check bitbake-setup==2.19.0
		touch build/bitbake/done
	fi
	PICKET_NAMESPACE=1 exec unshare --mount --net --propagation private bash "$0" "$@"
fi
ip link set lo up

version=${VERSION:?}
release=$PWD/build/release
work=$PWD/build/cross/test-integration
rm -rf "$work"
mkdir -p "$work"
passed=0
pass() {
	passed=$((passed + 1))
	echo "ok   $*"
}
export LC_ALL=C.UTF-8
# The same program, run plainly, knows no libraries but those beside it.
unset PICKET_ONNXRUNTIME
want="picket ${version/#devel/(devel)} ("

# --- apt: a real apt-get, with a root of its own, as each architecture

export GNUPGHOME=$work/gnupg
mkdir -m 0700 "$GNUPGHOME"
trap 'gpgconf --kill all' EXIT
for name in picket stranger; do
	gpg --batch --quiet --passphrase '' --quick-gen-key "$name@example.org" ed25519 sign never 2>/dev/null
done
repo=$work/apt
export APT_URL=file://$repo
APT_KEY=picket@example.org sh cross/apt-repo.sh "$repo" >/dev/null
! APT_KEY=nobody@example.org sh cross/apt-repo.sh "$work/no" 2>/dev/null || die "apt-repo.sh signs with a key that is not there"

apt() { # ARCH ARGUMENT...: an apt-get that knows nothing but the repository, in a root that trusts its key
	local root=$work/apt-$1 arch=$1
	shift
	mkdir -p "$root/etc/apt/sources.list.d" "$root/etc/apt/preferences.d" "$root/usr/share/keyrings" \
		"$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial" "$root/var/lib/dpkg"
	[ -e "$root/var/lib/dpkg/status" ] || : >"$root/var/lib/dpkg/status"
	cp "$repo/picket.gpg" "$root/usr/share/keyrings/"
	sed "s,/usr/share/keyrings,$root&," "$repo/picket.sources" >"$root/etc/apt/sources.list.d/picket.sources"
	apt-get -q -o Dir="$root" -o Dir::State::status="$root/var/lib/dpkg/status" -o APT::Architecture="$arch" \
		-o APT::Architectures="$arch" -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
}
for target in "$@"; do
	# shellcheck source=/dev/null
	. "cross/$target.sh"
	apt "$debian" update >"$work/said" 2>&1 || die "apt-get update for $debian: $(cat "$work/said")"
	(cd "$work" && apt "$debian" download picket >"$work/said" 2>&1) || die "apt-get download for $debian: $(cat "$work/said")"
	cmp -s "$work"/picket_*_"$debian".deb "$release"/picket_*_"$debian".deb || die "apt-get downloads another deb for $debian"
	pass "apt: $debian's deb comes from the signed repository"
done
refused() { # WHAT PATTERN: apt-get update fails, or says so, and has no list of it
	rm -rf "$work/apt-amd64"
	! apt amd64 update >"$work/said" 2>&1 || die "apt-get update takes $1: $(cat "$work/said")"
	grep -q "$2" "$work/said" || die "apt-get update with $1 says $(cat "$work/said")"
	! (cd "$work" && apt amd64 download picket >/dev/null 2>&1) || die "with $1, apt-get still downloads"
	pass "apt: $1 is refused"
}
cp -a "$repo" "$work/good"
restore() {
	rm -rf "$repo"
	cp -a "$work/good" "$repo"
}
packages=$repo/dists/stable/main/binary-amd64
sed -i 's/^Version: /&9:/' "$packages/Packages" "$packages"/by-hash/SHA256/*
gzip -9nc "$packages/Packages" >"$packages/Packages.gz"
for f in "$packages"/by-hash/SHA256/*; do cp "$packages/Packages" "$f"; done
refused "a changed list of packages" 'unexpected size\|Hash Sum mismatch'
restore
sed -i 's/^Label: Picket/Label: picket/' "$repo/dists/stable/InRelease"
refused "a changed InRelease" 'BADSIG\|invalid\|not signed'
restore
(cd "$repo/dists/stable" && gpg --batch --yes --local-user stranger@example.org --clearsign -o InRelease Release)
refused "a stranger's signature" 'NO_PUBKEY\|not available\|not signed'
restore
rm -rf "$work/apt-amd64"
apt amd64 update >/dev/null 2>&1
printf x | dd of="$(echo "$repo"/pool/main/p/picket/*_amd64.deb)" bs=1 seek=5000 conv=notrunc status=none
rm -f "$work"/picket_*_amd64.deb
! (cd "$work" && apt amd64 download picket >"$work/said" 2>&1) || die "apt-get takes a changed deb"
grep -q 'Hash Sum mismatch' "$work/said" || die "apt-get with a changed deb says $(cat "$work/said")"
pass "apt: a changed deb is refused"
! APT_KEY=picket@example.org sh cross/apt-repo.sh "$repo" >/dev/null 2>"$work/said" || die "a version is replaced in place"
grep -q 'publish a new version' "$work/said" || die "apt-repo.sh says $(cat "$work/said")"
restore
# A second release beside the first: what apt would upgrade to.
deb=$(echo "$release"/picket_*_amd64.deb)
dpkg-deb -R "$deb" "$work/newer"
sed -i 's/^Version: .*/Version: 99.0/' "$work/newer/DEBIAN/control"
dpkg-deb --root-owner-group -Znone -b "$work/newer" "$repo/pool/main/p/picket/picket_99.0_amd64.deb" >/dev/null
APT_KEY=picket@example.org sh cross/apt-repo.sh "$repo" >/dev/null
apt amd64 update >/dev/null
apt amd64 --print-uris download picket | grep -q picket_99.0_amd64.deb || die "apt-get does not see the newer version"
apt amd64 --print-uris download "picket=$(dpkg-deb -f "$deb" Version)" >/dev/null || die "the older version is gone"
pass "apt: a newer version comes beside the older one"

# --- OCI: read by others' programs, run in a root and by runc

image=$PWD/build/oci/picket-$version-oci.tar
VERSION=$version sh cross/oci.sh "$1" >/dev/null
sum=$(sha256sum "$image")
VERSION=$version sh cross/oci.sh "$1" >/dev/null
[ "$(sha256sum "$image")" = "$sum" ] || die "the same files give another image"
pass "oci: made twice, the same"
VERSION=$version sh cross/oci.sh "$@" >/dev/null
tag=${version//[+~]/-}
mkdir "$work/oci"
tar -xf "$image" -C "$work/oci"
for target in "$@"; do
	# shellcheck source=/dev/null
	. "cross/$target.sh"
	variant=()
	arch=$goarch
	[ "$target" != armv7 ] || variant=(--override-variant v7)
	skopeo --override-arch "$arch" "${variant[@]}" inspect "oci-archive:$image:$tag" | grep -q "\"Architecture\": \"$arch\"" ||
		die "oci: no image for $target"
	skopeo inspect "docker-archive:$image:docker.io/library/picket:$tag-$target" | grep -q "\"Architecture\": \"$arch\"" ||
		die "oci: docker load would find no $target"
	skopeo --override-arch "$arch" "${variant[@]}" copy -q "oci:$work/oci:$tag" "oci:$work/one:$target"
	umoci --log error unpack --image "$work/one:$target" "$work/bundle-$target"
	root=$work/bundle-$target/rootfs
	mkdir -p "$root/testdata" "$root/proc" "$root/sys" "$root/dev"
	cp testdata/scan.pcap.gz "$root/testdata/"
	register=/usr/lib/binfmt.d/qemu-$machine.conf
	[ "$target" != armv7 ] || register=/usr/lib/binfmt.d/qemu-arm.conf
	# shellcheck disable=SC2016 # the inner shell's own
	unshare --user --map-root-user --mount bash -c '
		set -e
		mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
		[ "$1" = "$(uname -m)" ] || cat "$3" >/proc/sys/fs/binfmt_misc/register
		mount --rbind /proc "$2/proc"
		mount --rbind /sys "$2/sys"
		root=$2
		run() { env -i PATH=/usr/bin:/usr/sbin chroot "$root" /usr/bin/picket "$@"; }
		run version
		run model check captures-xgboost
		run scan --json /testdata/scan.pcap.gz || [ $? -eq 1 ]
	' test "$machine" "$root" "$register" >"$work/said" 2>"$work/stderr" || die "oci: $target: $(tail -n 5 "$work/said" "$work/stderr")"
	grep -q "^$want.*linux/$goarch" "$work/said" && grep -q ': good\.' "$work/said" && grep -q '"action":"incident-new"' "$work/said" ||
		die "oci: $target says $(head -c 2000 "$work/said")"
	pass "oci: $target: inspected by skopeo, unpacked by umoci, runs"
done

# As docker run would with --network host --read-only --security-opt no-new-privileges --cap-drop ALL and --cap-add of
# NET_RAW, and of SETUID, SETGID, CHOWN and DAC_OVERRIDE, which are given up with root.
mosquitto -p 1883 >"$work/mosquitto" 2>&1 &
pids=($!)
trap 'kill "${pids[@]}" 2>/dev/null; gpgconf --kill all' EXIT
if [[ " $* " = *" amd64 "* ]]; then
	ip link add watched type veth peer name other
	ip link set watched up
	ip link set other up
	cp -a "$work/bundle-amd64/rootfs/var/lib/picket" "$work/volume" # as docker fills a new volume
	python3 - "$work/bundle-amd64/config.json" "$work/volume" <<'PY'
import json
import sys

path, volume = sys.argv[1:]
with open(path, encoding="utf-8") as f:
    c = json.load(f)
caps = ["CAP_NET_RAW", "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]
c["process"].update(terminal=False, noNewPrivileges=True, capabilities={k: caps for k in ("bounding", "effective", "permitted")})
c["process"]["args"] += ["-i", "watched", "--mqtt", "mqtt://127.0.0.1", "--gateway", "gw", "--state-dir", "/var/lib/picket"]
c["root"]["readonly"] = True
for m in c["mounts"]:
    if m["destination"] == "/var/lib/picket":
        m.update(type="bind", source=volume, options=["bind", "rw"])
c["linux"]["namespaces"] = [n for n in c["linux"]["namespaces"] if n["type"] != "network"]
with open(path, "w", encoding="utf-8") as f:
    json.dump(c, f)
PY
	mosquitto_sub -t 'picket/gw/#' -v >"$work/events" &
	pids+=($!)
	runc run --bundle "$work/bundle-amd64" "picket-test-$$" >"$work/container" 2>&1 &
	for _ in $(seq 100); do
		! grep -q 'status online' "$work/events" || break
		sleep 0.2
	done
	grep -q 'status online' "$work/events" || die "oci: the container does not come online: $(cat "$work/container")"
	runc ps "picket-test-$$" | grep -q '^10000 ' || die "oci: the container runs as $(runc ps "picket-test-$$")"
	tcpreplay -q -i other <(gzip -dc testdata/scan.pcap.gz) >/dev/null 2>&1
	for _ in $(seq 100); do
		! grep -q 'picket/gw/event ' "$work/events" || break
		sleep 0.2
	done
	grep -q '^picket/gw/event .*incident-new' "$work/events" || die "oci: no event from the container: $(cat "$work/container" "$work/events")"
	runc kill "picket-test-$$" TERM
	for _ in $(seq 50); do
		! grep -q 'status offline' "$work/events" || break
		sleep 0.2
	done
	grep -q 'status offline' "$work/events" || die "oci: the container does not end"
	pass "oci: runc runs it read-only as user 10000 on five capabilities: an event at the broker"
fi
echo "$passed passed, 0 failed"
