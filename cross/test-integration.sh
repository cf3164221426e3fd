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
	for need in apt-ftparchive:apt-utils gpg:gnupg skopeo:skopeo umoci:umoci runc:runc kconfig-conf:kconfig-frontends-nox \
		qemu-aarch64-static:qemu-user-static mosquitto:mosquitto mosquitto_sub:mosquitto-clients nmap:nmap curl:curl tcpreplay:tcpreplay ip:iproute2 python3:python3-venv; do
		command -v "${need%%:*}" >/dev/null || [ -x "/usr/sbin/${need%%:*}" ] || die "${need%%:*} is missing: apt-get install ${need##*:}"
	done
	sh cross/debian.sh bullseye amd64 build/cross/amd64/system libstdc++6 dash coreutils
	sh cross/debian.sh bullseye amd64 build/cross/amd64/busybox busybox-static
	sh cross/debian.sh trixie amd64 build/cross/certificates ca-certificates # oci.sh's; there is no network below
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
program="picket ${version/#devel/(devel)} ("

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
before=$(sha256sum <"$repo/dists/stable/main/binary-amd64/Packages.gz")
APT_KEY=picket@example.org sh cross/apt-repo.sh "$repo" >/dev/null
[ -e "$repo/dists/stable/main/binary-amd64/by-hash/SHA256/${before%% *}" ] || die "who has read the last InRelease finds no list"
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
		root=$2 cpu=$4
		run() { env -i PATH=/usr/bin:/usr/sbin QEMU_CPU="$cpu" chroot "$root" /usr/bin/picket "$@"; }
		run version
		run model check captures-xgboost
		run scan --json /testdata/scan.pcap.gz || [ $? -eq 1 ]
	' test "$machine" "$root" "$register" "$cpu" >"$work/said" 2>"$work/stderr" || die "oci: $target: $(tail -n 5 "$work/said" "$work/stderr")"
	grep -q "^$program.*linux/$goarch" "$work/said" && grep -q ': good\.' "$work/said" && grep -q '"action":"incident-new"' "$work/said" ||
		die "oci: $target says $(head -c 2000 "$work/said")"
	pass "oci: $target: inspected by skopeo, unpacked by umoci, runs$([ "$machine" = "$(uname -m)" ] || echo " on a processor like $cpu")"
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

# --- recipes, as the release's integration.tar.gz has them

tar -xzf "$release/picket-$version-integration.tar.gz" -C "$work"
recipes=$work/picket-$version-integration
! grep -rnE '@[A-Z_a-z0-9-]+@' "$recipes" || die "the recipes are not filled in"
for f in $(sed -n 's/^sha256 .* \(picket-.*\)/\1/p' "$recipes/buildroot/package/picket/picket.hash"); do
	[ -e "$release/$f" ] || die "the recipes know $f, which the release has not"
done
plain=$work/plain bare=$work/bare # a root with Debian 11's C library, and one with busybox alone
cp -a build/cross/amd64/system/root "$plain"
[ -e "$plain/bin/sh" ] || ln -s dash "$plain/bin/sh"
mkdir -p "$bare/bin"
cp build/cross/amd64/busybox/root/bin/busybox "$bare/bin/"
for a in $("$bare/bin/busybox" --list); do [ "$a" = busybox ] || ln -s busybox "$bare/bin/$a"; done
for root in "$plain" "$bare"; do
	mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/run" "$root/var/lib" "$root/etc"
	ln -sfn ../run "$root/var/run"
	touch "$root/dev/null"
	mount --bind /dev/null "$root/dev/null"
	mount --rbind /proc "$root/proc"
	mount --rbind /sys "$root/sys"
done
printf 'root:x:0:0::/:/bin/sh\npicket:x:1000:1000::/var/lib/picket:/bin/false\n' | tee "$plain/etc/passwd" >"$bare/etc/passwd"
printf 'root:x:0:\npicket:x:1000:\n' | tee "$plain/etc/group" >"$bare/etc/group"
in_root() { # ROOT COMMAND...
	env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin chroot "$@"
}
# installed NAME IMAGE ROOT: what a recipe has installed runs in a root, where it leaves nothing.
installed() {
	cp -a "$2/." "$3/"
	in_root "$3" /usr/bin/picket version >"$work/said" 2>&1 && in_root "$3" /usr/bin/picket model check captures-xgboost >>"$work/said" 2>&1 ||
		die "$1: $(cat "$work/said")"
	grep -q "^$program" "$work/said" && grep -q ': good\.' "$work/said" || die "$1 says $(cat "$work/said")"
}
has() { # IMAGE FILE...
	local image=$1
	shift
	for f in "$@"; do [ -e "$image/$f" ] || die "no $f in $image"; done
}

# Yocto: BitBake's own parser, fetcher and shell; OpenEmbedded's classes are not to be had here.
layer=$recipes/yocto/meta-picket
yocto() { # URL MIRROR TARGET LIBC INIT
	local dir=$work/yocto-$3-$4
	rm -rf "$dir"
	mkdir "$dir"
	build/bitbake/bin/python cross/yocto.py "$layer" "$1" "$2" "$dir" "$3" "$4" "$5" >"$work/said" 2>&1
}
url=https://files.example/picket
for one in "amd64 glibc systemd" "amd64 musl sysvinit" "arm64 glibc systemd" "arm64 musl sysvinit" "armv7 glibc sysvinit" "riscv64 musl systemd"; do
	read -r target libc init <<<"$one"
	[[ " $* " = *" $target "* ]] || continue
	yocto $url "$release" "$target" "$libc" "$init" || die "yocto $one: $(cat "$work/said")"
	image=$work/yocto-$target-$libc/tmp/picket/image
	has "$image" usr/bin/picket usr/lib/picket/libonnxruntime.so etc/picket/picket.toml
	if [ "$init" = systemd ]; then has "$image" usr/lib/systemd/system/picket.service; else has "$image" etc/init.d/picket; fi
	[ ! -e "$image/etc/init.d" ] || [ ! -e "$image/usr/lib/systemd" ] || die "yocto $one: two init systems"
	pass "yocto: BitBake parses, fetches, checks and installs for $one"
done
installed "yocto amd64 glibc" "$work/yocto-amd64-glibc/tmp/picket/image" "$plain"
installed "yocto amd64 musl" "$work/yocto-amd64-musl/tmp/picket/image" "$bare"
pass "yocto: what is installed for amd64 runs, with a C library of the system and without"
! yocto $url "$release" armv6 glibc sysvinit && grep -q 'skipped: .*ARMv7' "$work/said" || die "yocto: ARMv6 says $(cat "$work/said")"
! yocto "" "$release" amd64 glibc systemd && grep -q 'skipped: PICKET_RELEASES' "$work/said" || die "yocto: no URL says $(cat "$work/said")"
! yocto "file://$release" "$release" amd64 glibc systemd && grep -q 'skipped: .*PREMIRRORS' "$work/said" || die "yocto: file: says $(cat "$work/said")"
mkdir "$work/changed"
cp "$release/picket-$version-linux-amd64.tar.gz" "$work/changed/"
printf x >>"$work/changed/picket-$version-linux-amd64.tar.gz"
! yocto $url "$work/changed" amd64 glibc systemd && grep -q '^do_fetch: .*Network access disabled' "$work/said" ||
	die "yocto: a changed tar.gz says $(cat "$work/said")"
pass "yocto: ARMv6, no URL, a file: URL and a changed tar.gz are refused"

# Buildroot: its Kconfig, by Debian's copy of the kernel's, and make with stand-ins for its infrastructure.
external=$recipes/buildroot
[ "$(sed -n 's/^name: //p' "$external/external.desc")" = PICKET ] || die "buildroot: external.desc"
cat >"$work/Config.in" <<-'KCONFIG'
	config BR2_EXTERNAL_PICKET_PATH
		string
		option env="BR2_EXTERNAL_PICKET_PATH"
	config BR2_x86_64
		bool "x86_64"
	config BR2_aarch64
		bool "aarch64"
	config BR2_arm
		bool "arm"
	config BR2_ARM_CPU_ARMV7A
		bool "armv7a"
	config BR2_ARM_CPU_ARMV8A
		bool "armv8a"
	config BR2_ARM_EABIHF
		bool "hard float"
	config BR2_RISCV_64
		bool "riscv"
	config BR2_USE_MMU
		bool "mmu"
	config BR2_STATIC_LIBS
		bool "static"
	config BR2_INSTALL_LIBSTDCPP
		bool "c++"
	config BR2_TOOLCHAIN_USES_GLIBC
		bool "glibc"
	source "$BR2_EXTERNAL_PICKET_PATH/Config.in"
KCONFIG
cat >"$work/buildroot.mk" <<'MAKE'
include $(CONFIG)
qstrip = $(strip $(subst ",,$(1)))
INSTALL = install
PICKET_PKGDIR = $(BR2_EXTERNAL_PICKET_PATH)/package/picket
generic-package =
include $(BR2_EXTERNAL_PICKET_PATH)/external.mk
$(BUILD)/installed:
	mkdir -p $(@D) $(TARGET_DIR)
	[ "$(BR2_PACKAGE_PICKET)" = y ]
	cd $(patsubst file://%,%,$(PICKET_SITE)) && sed -n 's/^sha256  //p' $(PICKET_PKGDIR)/picket.hash | grep ' $(PICKET_SOURCE)$$' | sha256sum -c
	tar -xzf $(patsubst file://%,%,$(PICKET_SITE))/$(PICKET_SOURCE) -C $(@D) --strip-components=1
	cd $(@D) && ls $(PICKET_LICENSE_FILES)
	$(PICKET_INSTALL_TARGET_CMDS)
	$(PICKET_INSTALL_INIT_$(INIT))
MAKE
buildroot() { # NAME INIT CONFIG...: configures, and installs into buildroot-NAME/target
	local dir=$work/buildroot-$1 init=$2
	mkdir "$dir"
	shift 2
	printf '%s=y\n' "$@" BR2_USE_MMU BR2_PACKAGE_PICKET >"$dir/.config"
	echo "BR2_PACKAGE_PICKET_SITE=\"file://$release\"" >>"$dir/.config"
	(cd "$dir" && BR2_EXTERNAL_PICKET_PATH=$external kconfig-conf --olddefconfig "$work/Config.in" >"$work/said" 2>&1) || die "buildroot: $(cat "$work/said")"
	! grep -q 'warning' "$work/said" || die "buildroot: $(cat "$work/said")"
	sed -i 's/^CONFIG_//' "$dir/.config"
	make -s -f "$work/buildroot.mk" CONFIG="$dir/.config" BR2_EXTERNAL_PICKET_PATH="$external" BUILD="$dir/build" \
		TARGET_DIR="$dir/target" INIT="$init" "$dir/build/installed" >"$work/said" 2>&1
}
export CONFIG_='' # Buildroot's symbols bear no prefix
glibc="BR2_TOOLCHAIN_USES_GLIBC BR2_INSTALL_LIBSTDCPP"
# shellcheck disable=SC2086
{
	buildroot glibc SYSTEMD BR2_x86_64 $glibc || die "buildroot: glibc: $(cat "$work/said")"
	buildroot musl SYSV BR2_x86_64 || die "buildroot: musl: $(cat "$work/said")"
	buildroot aarch64 SYSV BR2_aarch64 $glibc || die "buildroot: aarch64: $(cat "$work/said")"
	buildroot arm SYSV BR2_arm BR2_ARM_CPU_ARMV7A BR2_ARM_EABIHF $glibc || die "buildroot: arm: $(cat "$work/said")"
	buildroot riscv SYSTEMD BR2_RISCV_64 || die "buildroot: riscv: $(cat "$work/said")"
	! buildroot armv5 SYSV BR2_arm $glibc || die "buildroot: ARMv5 is taken"
	! buildroot nocxx SYSV BR2_x86_64 BR2_TOOLCHAIN_USES_GLIBC || die "buildroot: a toolchain without C++ is taken"
}
! grep '^BR2_PACKAGE_PICKET=y' "$work/buildroot-armv5/.config" "$work/buildroot-nocxx/.config" || die "buildroot: Kconfig offers it to those"
has "$work/buildroot-glibc/target" usr/lib/systemd/system/picket.service etc/picket/picket.toml
has "$work/buildroot-musl/target" etc/init.d/S80picket
pass "buildroot: Kconfig offers it to what can run it, make fetches, checks and installs"
# As Buildroot does to all that is in an image.
for name in glibc musl; do
	find "$work/buildroot-$name/target" -type f \( -perm /111 -o -name '*.so*' \) -print0 | xargs -0 strip --remove-section=.comment --remove-section=.note 2>/dev/null || :
done
rm -rf "$plain/usr/lib/picket" "$bare/usr/lib/picket"
installed "buildroot glibc" "$work/buildroot-glibc/target" "$plain"
installed "buildroot musl" "$work/buildroot-musl/target" "$bare"
pass "buildroot: what is installed for amd64 runs after a strip, with a C library of the system and without"

# The init script of Buildroot and Yocto, by busybox alone.
init() { in_root "$bare" /etc/init.d/S80picket "$@"; }
! init start >"$work/said" 2>&1 && grep -q 'FAIL' "$work/said" && grep -q interface "$work/said" || die "S80picket starts without an interface: $(cat "$work/said")"
printf 'interface = ["lo"]\nmqtt = ["mqtt://127.0.0.1"]\ngateway = "s80"\n' >"$bare/etc/picket/picket.toml"
mosquitto_sub -t 'picket/s80/status' -v >"$work/s80" &
pids+=($!)
wait_for() { # PATTERN FILE [COUNT]
	for _ in $(seq 100); do
		[ "$(grep -c "$1" "$2")" -lt "${3:-1}" ] || return 0
		sleep 0.2
	done
	die "no $1 in $2: $(cat "$2")"
}
sleep 1000 & # has the number that a picket had before a power cut
other=$!
pids+=("$other")
echo $other | tee "$bare/run/picket.pid" >"$bare/run/picket.supervisor.pid"
! init status >/dev/null && init stop >/dev/null && kill -0 $other || die "S80picket takes another process for its own"
echo $other | tee "$bare/run/picket.pid" >"$bare/run/picket.supervisor.pid"
init start >"$work/said" 2>&1 || die "S80picket: $(cat "$work/said")"
wait_for online "$work/s80"
pid=$(cat "$bare/run/picket.pid")
grep -q '^Uid:.1000' "/proc/$pid/status" || die "S80picket: not the user picket: $(grep Uid "/proc/$pid/status")"
init status | grep -q 'picket runs' || die "S80picket status"
init reload | grep -q OK || die "S80picket reload"
kill -9 "$pid"
wait_for online "$work/s80" 2 # started again, five seconds after
[ "$(cat "$bare/run/picket.pid")" != "$pid" ] || die "S80picket: the same process"
pid=$(cat "$bare/run/picket.pid")
init stop | grep -q OK || die "S80picket stop"
[ ! -e "/proc/$pid" ] || die "S80picket: it still runs"
! init status >/dev/null || die "S80picket status of what is stopped"
sleep 6
[ ! -e "$bare/run/picket.pid" ] || die "S80picket: started again after a stop"
pass "S80picket: starts as user picket, reloads, comes back after kill -9, and stops"

# OpenWrt: make with stand-ins for its build system, and the init script by busybox's ash before stand-ins for UCI and procd.
feed=$recipes/openwrt/picket
mkdir "$work/openwrt"
cat >"$work/openwrt/rules.mk" <<'MAKE'
INCLUDE_DIR = $(TOPDIR)
BUILD_DIR = $(OUT)/build
INSTALL_DIR = install -d -m0755
INSTALL_BIN = install -m0755
INSTALL_CONF = install -m0600
INSTALL_DATA = install -m0644
CP = cp -fpR
RSTRIP = strip-everything
MAKE
cat >"$work/openwrt/package.mk" <<'MAKE'
define BuildPackage
  $(eval $(Package/picket))
all:
	@echo "$(strip $(TITLE)) for $(strip $(DEPENDS))"
	[ -n "$(PKG_VERSION)" ] && [ -n "$(PKG_LICENSE_FILES)" ] && [ -n "$(strip $(Package/picket/conffiles))" ]
	echo "$(PKG_HASH)  $(patsubst file://%,%,$(PKG_SOURCE_URL))/$(PKG_SOURCE)" | sha256sum -c
	mkdir -p $(BUILD_DIR)
	tar -xzf $(patsubst file://%,%,$(PKG_SOURCE_URL))/$(PKG_SOURCE) -C $(BUILD_DIR)
	cd $(PKG_BUILD_DIR) && ls $(PKG_LICENSE_FILES)
	$(call Build/Configure)
	$(call Build/Compile)
	$(call Package/picket/install,$(OUT)/ipkg)
	$(RSTRIP) $(OUT)/ipkg
endef
MAKE
openwrt() { # ARCH CPU_TYPE
	make -s -C "$feed" TOPDIR="$work/openwrt" OUT="$work/openwrt/$1-$2" ARCH="$1" CPU_TYPE="$2" PICKET_RELEASES="file://$release" >"$work/said" 2>&1
}
for one in "x86_64 x86" "aarch64 cortex-a53" "arm cortex-a7+neon-vfpv4" "riscv64 riscv64"; do
	read -r arch cpu <<<"$one"
	openwrt "$arch" "$cpu" || die "openwrt $one: $(cat "$work/said")"
	image=$work/openwrt/$arch-$cpu/ipkg
	has "$image" etc/config/picket etc/init.d/picket etc/picket/picket.toml usr/bin/picket usr/lib/picket/libonnxruntime.so.sha256
	# OpenWrt wants every library that an ELF file needs in the package or what it depends on.
	needs=$({ find "$image" -type f -exec readelf -d {} + 2>/dev/null || :; } | sed -n 's/.*(NEEDED).*\[\(lib.*\)\]/\1/p' | sort -u)
	[[ $needs = *libstdc++* ]] || die "openwrt $arch: nothing needs a library"
	for lib in $needs; do [ -e "$image/usr/lib/picket/$lib" ] || die "openwrt $arch: $lib is missing"; done
done
! openwrt arm arm1176jzf-s+vfp && grep -q 'needs ARMv7' "$work/said" || die "openwrt: ARMv6 says $(cat "$work/said")"
rm -rf "$bare/usr/lib/picket" "$bare/etc/init.d" "$bare/etc/picket"
installed openwrt "$work/openwrt/x86_64-x86/ipkg" "$bare"
pass "openwrt: make fetches, checks and installs; what is installed for x86_64 runs"

mkdir -p "$bare/lib/functions"
cat >"$bare/lib/functions.sh" <<'ASH'
reset_cb() { config_cb() { :; }; option_cb() { :; }; list_cb() { :; }; }
reset_cb
config() { CONFIG_SECTION=$2; config_cb "$1" "$2"; }
option() { eval "CONFIG_${CONFIG_SECTION}_$1=\$2"; option_cb "$1" "$2"; }
list() { eval "LIST_${CONFIG_SECTION}_$1=\"\${LIST_${CONFIG_SECTION}_$1:-} \$2\""; list_cb "$1" "$2"; }
config_load() { for v in $(set | sed -n 's/^\(LIST_[^=]*\)=.*/\1/p'); do unset "$v"; done; . "/etc/config/$1"; }
config_get_bool() { eval "$1=\${CONFIG_$2_$3:-$4}"; }
config_list_foreach() { eval "for v in \${LIST_$1_$2:-}; do $3 \$v; done"; }
procd_open_instance() { :; }
procd_close_instance() { echo "command$command"; command=; }
procd_set_param() { if [ "$1" = command ]; then shift; command=; for a; do command="$command [$a]"; done; else echo "$*"; fi; }
procd_append_param() { shift; for a; do command="$command [$a]"; done; }
procd_send_signal() { echo signal "$@"; }
procd_add_reload_trigger() { echo trigger "$@"; }
procd_add_interface_trigger() { echo trigger "$@"; }
start() { start_service; }
chown() { echo chown "$@"; }
ASH
# shellcheck disable=SC2016 # ash's own
echo 'network_get_device() { [ "$2" = lan ] && eval "$1=br-lan"; }' >"$bare/lib/functions/network.sh"
ash() { in_root "$bare" /bin/sh -c ". /lib/functions.sh; . /etc/init.d/picket; $1"; }
[ -z "$(ash start_service)" ] || die "openwrt: the service starts before it is enabled: $(ash start_service)"
cat >"$bare/etc/config/picket" <<-'UCI'
	config picket 'main'
		option enabled '1'
		list network 'lan'
		list network 'away'
		list interface 'wwan0'
		list mqtt 'mqtts://broker-1:8883'
		list mqtt 'mqtts://broker-2:8883'
		option gateway 'gw 17'
		option homeassistant '1'

	config other 'second'
		option workers '3'
UCI
said=$(ash 'reload_service; service_triggers')
want="signal picket * HUP
chown picket /etc/picket/state
env CREDENTIALS_DIRECTORY=/etc/picket
respawn 3600 5 0
stderr 1
term_timeout 15
command [/usr/bin/picket] [run] [--config] [/etc/picket/picket.toml] [--user] [picket] [--interface=br-lan] [--interface=wwan0] [--mqtt=mqtts://broker-1:8883] [--mqtt=mqtts://broker-2:8883] [--gateway=gw 17] [--homeassistant=1] [--state-dir=/etc/picket/state]
trigger picket
trigger interface.*.up lan /etc/init.d/picket reload
trigger interface.*.up away /etc/init.d/picket reload"
[ "$said" = "$want" ] || die "openwrt: the init script says $said"
[ "$(stat -c %a "$bare/etc/picket/state")" = 700 ] || die "openwrt: the queue is not private"
echo "	option state_dir '/mnt/usb/picket'" >>"$bare/etc/config/picket"
sed -i '/^config other/,/workers/d' "$bare/etc/config/picket"
said=$(ash start_service)
[[ $said = *'[--state-dir=/mnt/usb/picket]' && $said != *chown* ]] || die "openwrt: with a state_dir the init script says $said"
sed -i '/state_dir/d' "$bare/etc/config/picket"
mkdir "$bare/etc/picket/conf.d"
echo 'state-dir = "/mnt/usb/picket"' >"$bare/etc/picket/conf.d/site.toml"
said=$(ash start_service)
[[ $said != *state-dir* && $said != *chown* ]] || die "openwrt: with a state-dir in conf.d the init script says $said"
rm -r "$bare/etc/picket/conf.d"
# What it starts is what picket takes.
read -r -a words <<<"--interface=lo --mqtt=mqtt://127.0.0.1 --gateway=gw --homeassistant=1 --state-dir=/tmp"
in_root "$bare" /usr/bin/picket run --config /etc/picket/picket.toml --user picket "${words[@]}" --check >"$work/said" 2>&1 || die "openwrt: $(cat "$work/said")"
pass "openwrt: UCI becomes flags, a change of it a restart, a network that comes a reload"

# --- docs/integrate.md: its commands, in their order, on an image with busybox alone

page=$work/page
mkdir "$page"
cp "$release/picket-$version-integration.tar.gz" "$release/picket-$version-linux-amd64-selfcontained.tar.gz" "$page/"
(cd "$page" && sha256sum -- * >SHA256SUMS)
IMAGE=$page/image
cp -a build/cross/amd64/busybox/root "$IMAGE"
mkdir -p "$IMAGE/etc" "$IMAGE/proc" "$IMAGE/sys" "$IMAGE/dev" "$IMAGE/run" "$IMAGE/var/lib"
ln -s ../run "$IMAGE/var/run"
cp -a "$bare/bin/." "$IMAGE/bin/"
touch "$IMAGE/dev/null"
mount --bind /dev/null "$IMAGE/dev/null"
mount --rbind /proc "$IMAGE/proc"
mount --rbind /sys "$IMAGE/sys"
cp testdata/scan.pcap.gz "$IMAGE/"
unshare --net sleep 300 &
laptop=$!
pids+=("$laptop")
ip link add eth0 type veth peer name laptop0
for _ in $(seq 50); do [ "$(readlink /proc/$laptop/ns/net)" = "$(readlink /proc/self/ns/net)" ] || break; sleep 0.1; done
ip link set laptop0 netns "$laptop" name eth0
ip addr add 192.0.2.1/24 dev eth0
ip link set eth0 up
nsenter -t "$laptop" -n sh -c 'ip link set lo up; ip addr add 192.0.2.66/24 dev eth0; ip addr add 192.0.2.67/24 dev eth0; ip link set eth0 up'

python3 - docs/integrate.md "$page" <<'PY' # 01.build, 02.gateway …
import re
import sys

text = open(sys.argv[1], encoding="utf-8").read()
for n, (where, commands) in enumerate(re.findall(r"^```sh (\w+)\n(.*?)^```$", text, re.M | re.S)):
    with open(f"{sys.argv[2]}/{n:02}.{where}", "w", encoding="utf-8") as f:
        f.write(commands)
PY
wait_online() { # COUNT
	for _ in $(seq 100); do
		[ "$(mosquitto_sub -t picket/gw-17/status -C 1 -W 2 2>/dev/null)" != online ] || return 0
		sleep 0.2
	done
	die "integrate.md: gw-17 is not online"
}
ran=0
for block in "$page"/[0-9][0-9].*; do
	ran=$((ran + 1))
	case $block in
	*.set) continue ;;
	*.build) (cd "$page" && VERSION=$version ARCH=amd64 IMAGE=$IMAGE sh -e "$block" >"$work/said" 2>&1) || die "integrate.md: ${block##*/}: $(cat "$work/said")" ;;
	*.subscriber)
		wait_online
		sh -c "exec $(cat "$block")" >"$page/events" 2>&1 & # one process, so that it ends with this script
		pids+=($!)
		wait_for 'status online' "$page/events"
		;;
	*.laptop)
		nsenter -t "$laptop" -n sh -e "$block" >"$work/said" 2>&1 || die "integrate.md: ${block##*/}: $(cat "$work/said")"
		wait_for '^picket/gw-17/event .*192.0.2.66 probes 192.0.2.1' "$page/events"
		;;
	*.gateway)
		if grep -q 'kill -9' "$block"; then # what the page tells to do before and after
			kill "${pids[0]}"
			wait "${pids[0]}" 2>/dev/null || :
			nsenter -t "$laptop" -n nmap -n -e eth0 -S 192.0.2.67 -p 1-1000 192.0.2.1 >/dev/null 2>&1
			for _ in $(seq 50); do # until the event is in the queue
				! curl -s http://127.0.0.1:9090/metrics | grep -q '^picket_queue_events [1-9]' || break
				sleep 0.2
			done
			curl -s http://127.0.0.1:9090/health | grep -q '"ok":false.*not connected to a broker' || die "integrate.md: /health without a broker"
		fi
		cp "$block" "$IMAGE/commands"
		in_root "$IMAGE" /bin/sh -e /commands >"$work/said" 2>&1 || die "integrate.md: ${block##*/}: $(cat "$work/said")"
		if grep -q 'kill -9' "$block"; then
			mosquitto -p 1883 >"$work/mosquitto" 2>&1 &
			pids[0]=$!
			wait_for '^picket/gw-17/event .*192.0.2.67 probes 192.0.2.1' "$page/events"
		fi
		if grep -q start "$block"; then wait_online; fi
		;;
	esac
done
[ "$ran" -ge 10 ] || die "integrate.md: only $ran blocks of commands"
in_root "$IMAGE" /etc/init.d/S80picket stop >/dev/null
pass "integrate.md: its commands, from an empty image to an event, and one from before a kill"

echo "$passed passed, 0 failed"
