#!/bin/bash
# Tests what package.sh left in build/release, every delivery of every target given, under qemu's user emulation
# where the target is not this machine:
#
#	bash cross/test.sh amd64 arm64 armv7 riscv64
#
# The processor is the oldest that the target promises (cpu= in its file). Each runs in a root of its own, by chroot: Debian 11 (glibc 2.31) for what uses the system's C library, a root with
# nothing but a static busybox for what brings its own. Everything happens in a user and mount namespace: what it
# mounts and registers is gone with it.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
	echo "cross-test: $*" >&2
	exit 1
}
if [ -z "${PICKET_NAMESPACE:-}" ]; then
	for need in unshare:util-linux qemu-aarch64-static:qemu-user-static rpm:rpm systemd-analyze:systemd minisign:minisign lintian:lintian; do
		command -v "${need%%:*}" >/dev/null || die "${need%%:*} is missing: apt-get install ${need##*:}"
	done
	for target in "$@"; do
		# shellcheck source=/dev/null
		. "cross/$target.sh"
		old=bullseye
		[ "$target" != riscv64 ] || old=trixie # its first release
		DEBIAN_FIXES=optional sh cross/debian.sh $old "$debian" "build/cross/$target/system" libstdc++6 dash coreutils
		DEBIAN_FIXES=optional sh cross/debian.sh $old "$debian" "build/cross/$target/busybox" busybox-static
	done
	DEBIAN_FIXES=optional sh cross/debian.sh bullseye amd64 build/cross/amd64/busybox busybox-static
	release=build/release
	python3 cross/archives_test.py 2>&1 | tail -n 3
	python3 cross/archives.py "$release"/*.deb "$release"/*.rpm "$release"/*.apk "$release"/*.ipk "$release"/*.tar.gz
	echo "ok   raw headers of $(find "$release" -name '*.deb' -o -name '*.rpm' -o -name '*.apk' -o -name '*.ipk' -o -name '*.tar.gz' | wc -l) archives"
	lintian --allow-root --fail-on error --tag-display-limit 0 "$release"/*.deb >build/cross/lintian 2>&1 || die "lintian: $(grep ^E: build/cross/lintian)"
	echo "ok   lintian: no errors"
	schema=cyclonedx-python-lib[json-validation]==11.12.0
	if [ "$(cat build/cyclonedx/done 2>/dev/null)" != "$schema" ]; then
		python3 -m venv build/cyclonedx
		build/cyclonedx/bin/pip install --quiet --disable-pip-version-check "$schema"
		echo "$schema" >build/cyclonedx/done
	fi
	build/cyclonedx/bin/python cross/sbom/validate.py "$release"/*.cdx.json
	case " $* " in *" amd64 "*) bash cross/services.sh ;; esac
	PICKET_NAMESPACE=1 exec unshare --user --map-root-user --mount --propagation private bash "$0" "$@"
fi
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc || die "this kernel has no binfmt_misc in namespaces: Linux 6.7 or newer is needed"

version=${VERSION:?}
release=$PWD/build/release
work=$PWD/build/cross/test
rm -rf "$work"
mkdir -p "$work"
passed=0
pass() {
	passed=$((passed + 1))
	echo "ok   $*"
}
now() { date +%s%N; }

# What amd64's program says, run plainly, is what all must say (same.py).
plain=$PWD/build/cross/amd64/picket
mkdir "$work/want"
for capture in testdata/*.pcap.gz; do
	PICKET_ONNXRUNTIME= "$plain" scan --json --gateway gw "$capture" 2>/dev/null >"$work/want/$(basename "$capture").json" || [ $? -eq 1 ]
	grep -q '"incident-end"' "$work/want/$(basename "$capture").json" || [[ $capture = *benign* ]] || die "no events in $capture"
done
# What owns directories on Fedora: an rpm that names them with other modes is refused.
mkdir "$work/filesystem"
cat >"$work/filesystem/nfpm.yaml" <<-YAML
	{name: filesystem, arch: all, version: "1", maintainer: Fedora, description: directories, contents: [
	{dst: /etc, type: dir, file_info: {mode: 0755}}, {dst: /usr, type: dir, file_info: {mode: 0755}},
	{dst: /usr/bin, type: dir, file_info: {mode: 0555}}, {dst: /usr/lib, type: dir, file_info: {mode: 0555}},
	{dst: /usr/share, type: dir, file_info: {mode: 0755}}, {dst: /usr/share/doc, type: dir, file_info: {mode: 0755}},
	{dst: /usr/lib/systemd, type: dir, file_info: {mode: 0755}}]}
YAML
go run "$(sed -n 's/^nfpm=//p' cross/package.sh)" package -f "$work/filesystem/nfpm.yaml" -p rpm -t "$work/filesystem.rpm" >/dev/null
mapfile -t models < <(find models -name '*.onnx' -printf '%f\n' | sort | sed 's/\.onnx$//')

# in_root ROOT COMMAND: with /proc and /dev/null, with no environment but a path and what is given.
in_root() {
	local root=$1
	shift
	env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin QEMU_CPU="$cpu" "${with[@]}" chroot "$root" "$@"
}
with=()
prepare() { # ROOT
	mkdir -p "$1/proc" "$1/sys" "$1/dev" "$1/tmp" "$1/testdata" "$1/root"
	touch "$1/dev/null"
	mounts "$1"
}
mounts() {
	mount --rbind /proc "$1/proc"
	mount --rbind /sys "$1/sys" # ONNX Runtime aborts on arm64 without
	mount --bind /dev/null "$1/dev/null"
	mount --bind testdata "$1/testdata"
}

# try NAME ROOT PROGRAM: version, golden rows of every model, every capture.
try() {
	local name=$1 root=$2 program=$3 said begun first
	begun=$(now)
	said=$(in_root "$root" "$program" version 2>"$work/stderr") || die "$name: version fails: $said $(head -n 5 "$work/stderr")"
	[[ $said = "picket ${version/#devel/(devel)} ("*"linux/$goarch)"*"ONNX Runtime $ort "* ]] || die "$name: version says $said"
	first=$((($(now) - begun) / 1000000))
	for model in "${models[@]}"; do
		in_root "$root" "$program" model check "$model" >"$work/check" 2>&1 || die "$name: model check $model fails: $(tail -n 3 "$work/check")"
		grep -q ': good\.' "$work/check" || die "$name: model check $model says $(cat "$work/check")"
		[ -z "${quick:-}" ] || break
	done
	begun=$(now)
	for capture in testdata/*.pcap.gz; do
		[ -z "${quick:-}" ] || [[ $capture = */scan.pcap.gz ]] || continue
		in_root "$root" "$program" scan --json --gateway gw "/$capture" 2>"$work/stderr" >"$work/got.json" || [ $? -eq 1 ] ||
			die "$name: scan of $capture fails: $(tail -n 3 "$work/stderr")"
		cmp -s "$work/want/$(basename "$capture").json" "$work/got.json" ||
			python3 cross/same.py "$work/want/$(basename "$capture").json" "$work/got.json" || die "$name: other events in $capture than on amd64"
	done
	pass "$name: version in $first ms, ${quick:+one of }${#models[@]} models good, ${quick:+one of }$(find testdata -name '*.pcap.gz' | wc -l) captures in $((($(now) - begun) / 1000000)) ms"
}

# licensed NAME FILE [glibc]: the licences that must be delivered are in FILE.
licensed() {
	local text=$work/text
	case $2 in *.gz) zcat "$2" ;; *) cat "$2" ;; esac >"$text" || die "$1 has no licences of third parties"
	grep -q 'THIRD PARTY SOFTWARE NOTICES AND INFORMATION' "$text" || die "$1 lacks ONNX Runtime's third-party notices"
	grep -q '^== github.com/yalue/onnxruntime_go@' "$text" || die "$1 lacks the licences of Go modules"
	[ -z "${3:-}" ] || tr -s ' \n' ' ' <"$text" | grep -q 'GNU LESSER GENERAL PUBLIC LICENSE Version 2.1, February 1999' || die "$1 lacks the LGPL of glibc"
}

# keeps NAME COMMAND...: unpacks into a root, $keep, whose directories must keep their modes and owners.
busybox=$(echo "$PWD"/build/cross/amd64/busybox/root/*/busybox)
[ -x "$busybox" ] || busybox=$PWD/build/cross/amd64/busybox/root/usr/bin/busybox
keep=$work/keep
keeps() {
	local before name=$1
	shift
	rm -rf "$keep"
	mkdir -p "$keep"/{etc/init.d,lib/upgrade,root,tmp,usr/{bin,lib/systemd,share/{doc,man}},var/lib}
	chmod 755 "$keep" "$keep"/{etc,lib,usr,usr/bin,usr/lib,usr/share,var,var/lib}
	chmod 700 "$keep/root"
	chmod 1777 "$keep/tmp"
	before=$(find "$keep" -type d -exec stat -c '%a %u %g %n' {} + | sort)
	(cd "$keep" && "$@") 2>"$work/stderr" || die "$name does not unpack: $(cat "$work/stderr")"
	[ -z "$(comm -23 <(echo "$before") <(find "$keep" -type d -exec stat -c '%a %u %g %n' {} + | sort))" ] ||
		die "$name changes directories: $(comm -23 <(echo "$before") <(find "$keep" -type d -exec stat -c '%a %u %g %n' {} + | sort))"
	[ -x "$keep/usr/bin/picket" ] || die "$name unpacks no picket"
}
rpm_files() { "$busybox" rpm2cpio "$1" | "$busybox" cpio -idm --quiet; }
ipk_files() { "$busybox" tar -xzOf "$1" ./data.tar.gz | "$busybox" tar -xz; }

for target in "$@"; do
	# shellcheck source=/dev/null
	. "cross/$target.sh"
	ort=$(cat "build/cross/$target/onnxruntime.version")
	own=glibc
	[ "$library" = debian ] || own=
	deb=$(echo "$release"/picket_*_"$debian".deb) rpmfile=$(echo "$release"/picket-*."$rpm".rpm)
	keeps "$target deb" "$busybox" dpkg-deb -x "$deb" "$keep"
	keeps "$target rpm" rpm_files "$rpmfile"
	keeps "$target apk" "$busybox" tar -xzf "$(echo "$release"/picket_*_"$apk".apk)"
	keeps "$target ipk" ipk_files "$(echo "$release"/picket_*_"$target".ipk)"
	pass "$target deb, rpm, apk, ipk leave directories as they are"
	case $target in
	amd64) ;;
	armv7) cat /usr/lib/binfmt.d/qemu-arm.conf >/proc/sys/fs/binfmt_misc/register ;;
	*) cat "/usr/lib/binfmt.d/qemu-$machine.conf" >/proc/sys/fs/binfmt_misc/register ;;
	esac
	# a root with the C library, and one without
	system=$work/$target-system bare=$work/$target-bare
	cp -a "build/cross/$target/system/root" "$system"
	for d in bin lib; do [ -e "$system/$d" ] || ln -s "usr/$d" "$system/$d"; done # Debian 13 has them in /usr only
	[ -e "$system/bin/sh" ] || ln -s dash "$system/bin/sh"
	mkdir -p "$bare/bin"
	cp "build/cross/$target/busybox/root"/*/busybox "$bare/bin/" 2>/dev/null || cp "build/cross/$target/busybox/root"/usr/bin/busybox "$bare/bin/"
	for a in sh dirname readlink rm mkdir grep; do ln -s busybox "$bare/bin/$a"; done
	prepare "$system"
	prepare "$bare"

	# dpkg and rpm themselves, and the packages' scripts, before a systemctl that only tells
	mkdir -p "$system/run/systemd/system" "$system/var/lib/private/picket/queue" "$system"/var/lib/dpkg/{info,updates} "$system/opt"
	: >"$system/var/lib/dpkg/status"
	printf '#!/bin/sh\necho "$*" >>/told\n' >"$system/usr/bin/systemctl"
	chmod 755 "$system/usr/bin/systemctl"
	told() { # NAME WORDS
		[ "$(cat "$system/told")" = "$2" ] || die "$target: $1 told systemd: $(cat "$system/told")"
		rm "$system/told"
	}
	dpkg_in() { QEMU_CPU=$cpu dpkg --root="$system" --log=/dev/null --force-depends --force-architecture "$@" >"$work/dpkg" 2>&1 || die "$target: dpkg $1: $(cat "$work/dpkg")"; }
	dpkg_in -i "$deb"
	! grep -q 'does not run' "$work/dpkg" || die "$target: dpkg -i says $(cat "$work/dpkg")"
	told "dpkg -i" "daemon-reload
try-restart picket.service"
	licensed "$target deb" "$system/usr/share/doc/picket/THIRD-PARTY.gz" $own
	if [ $target = arm64 ] || [ $target = amd64 ]; then try "$target deb, Debian 11" "$system" /usr/bin/picket; else try "$target deb" "$system" /usr/bin/picket; fi
	dpkg_in -i "$deb"
	told "an upgrade" "daemon-reload
try-restart picket.service"
	dpkg_in -r picket
	told "dpkg -r" "disable --now picket.service"
	[ -d "$system/var/lib/private/picket/queue" ] || die "$target: removed, not purged, the deb deletes the queue"
	dpkg_in -P picket
	[ ! -e "$system/var/lib/private/picket" ] && [ ! -e "$system/etc/picket" ] && [ ! -e "$system/usr/lib/picket" ] || die "$target: purged, the deb leaves something"
	pass "$target deb: dpkg installs, upgrades, removes, purges; it restarts what runs, and cleans up"
	if [ $target = amd64 ]; then
		"$plain" run --config-sample >"$work/sample"
		bash cross/upgrade.sh "$deb" "$system" "$work/sample"
		pass "$target deb: dpkg upgrades without a terminal, and keeps an edited config"
	fi

	quick=1
	rpm_in() { QEMU_CPU=$cpu rpm --root "$system" --dbpath /var/lib/rpm "$@" --nodeps >"$work/rpm" 2>&1 || die "$target: rpm $*: $(cat "$work/rpm")"; }
	rm -f "$system/told"
	rpm_in -i "$work/filesystem.rpm"
	rpm_in -i --ignorearch "$rpmfile"
	! grep -q 'does not run' "$work/rpm" || die "$target: rpm -i says $(cat "$work/rpm")"
	told "rpm -i" "daemon-reload
try-restart picket.service"
	licensed "$target rpm" "$system/usr/share/doc/picket/THIRD-PARTY.gz" $own
	try "$target rpm" "$system" /usr/bin/picket
	QEMU_CPU=$cpu rpm --root "$system" --dbpath /var/lib/rpm -V --nodeps filesystem picket >"$work/rpm" 2>&1 || die "$target: rpm -V says $(cat "$work/rpm")"
	rpm_in -e picket
	told "rpm -e" "disable --now picket.service"
	[ ! -e "$system/usr/bin/picket" ] && [ ! -e "$system/usr/lib/picket" ] || die "$target: rpm -e leaves $(ls -A "$system/usr/lib/picket")"
	pass "$target rpm: installed beside a filesystem package as Fedora's, verified, removed"
	tar -xzf "$release/picket-$version-linux-$target.tar.gz" -C "$system/opt"
	licensed "$target tar.gz" "$system/opt/picket-$version-linux-$target/THIRD-PARTY" $own
	if [ -z "$own" ]; then
		tar -xzf "$release/picket-$version-linux-$target-selfcontained.tar.gz" -C "$work"
		licensed "$target self-contained tar.gz" "$work/picket-$version-linux-$target-selfcontained/THIRD-PARTY" glibc
	fi
	try "$target tar.gz" "$system" "/opt/picket-$version-linux-$target/picket"
	tar -xzf "$release"/picket_*_"$apk".apk -C "$bare" --warning=none 2>"$work/stderr" || die "$target apk: $(cat "$work/stderr")"
	licensed "$target apk" "$bare/usr/share/doc/picket/THIRD-PARTY.gz" glibc
	try "$target apk, no C library" "$bare" /usr/bin/picket
	# apk runs .post-upgrade with two versions, and .pre-deinstall with one
	mkdir -p "$bare/sbin" "$bare/usr/lib/picket/.new-killed"
	for a in rc-service rc-update; do printf '#!/bin/sh\necho "%s $*" >>/told\n' $a >"$bare/sbin/$a"; done
	chmod 755 "$bare/sbin"/rc-*
	in_root "$bare" /bin/sh /.post-upgrade 1.2.4-r0 1.2.3-r0
	[ -x "$(echo "$bare"/usr/lib/picket/*/picket.bin)" ] || die "$target: upgraded, the apk has not unpacked: $(ls -A "$bare/usr/lib/picket")"
	[ ! -e "$bare/usr/lib/picket/.new-killed" ] || die "$target: the apk keeps what a kill left"
	mkdir "$bare/usr/lib/picket/.new-killed"
	in_root "$bare" /bin/sh /.pre-deinstall 1.2.4-r0
	[ -z "$(ls -A "$bare/usr/lib/picket")" ] || die "$target: removed, the apk leaves $(ls -A "$bare/usr/lib/picket")"
	[ "$(cat "$bare/told")" = "rc-service picket status
rc-service picket restart
rc-service picket stop
rc-update del picket" ] || die "$target: the apk's scripts told OpenRC: $(cat "$bare/told")"
	pass "$target apk restarts what runs, and cleans up"
	rm -rf "${bare:?}/usr" "${bare:?}/etc" "${bare:?}/sbin" "${bare:?}"/.[!.]*
	tar -xzf "$release"/picket_*_"$target".ipk -O ./data.tar.gz | tar -xz -C "$bare"
	[ -x "$bare/etc/init.d/picket" ] || die "no init script in the ipk"
	tar -xzf "$release"/picket_*_"$target".ipk -O ./control.tar.gz | tar -xz -C "$bare"
	with=(IPKG_INSTROOT=/image)
	in_root "$bare" /bin/sh /postinst
	[ -z "$(ls -A "$bare/usr/lib/picket")" ] || die "$target: the ipk unpacks while an image is made"
	with=()
	in_root "$bare" /bin/sh /postinst
	[ -x "$(echo "$bare"/usr/lib/picket/*/picket.bin)" ] || die "$target: installed, the ipk has not unpacked: $(ls -A "$bare/usr/lib/picket")"
	# what opkg compares with the room there is: bytes, all that there will be
	size=$(sed -n 's/^Installed-Size: //p' "$bare/control") used=$(du -sb --exclude=sbin "$bare/usr" "$bare/etc" | awk '{ n += $1 } END { print n }')
	[ $((size * 10 / used)) -ge 9 ] && [ $((size * 10 / used)) -le 11 ] || die "$target: the ipk says $size bytes installed, and uses $used"
	try "$target ipk, no C library" "$bare" /usr/bin/picket
	licensed "$target ipk" "$bare/usr/share/doc/picket/THIRD-PARTY.gz" glibc
	said=$(in_root "$bare" /usr/bin/picket scan --report /report.html /testdata/scan.pcap.gz 2>&1) || :
	[[ $said = *"no HTML"* ]] || die "$target: the ipk's picket has HTML: $said"
	# a program that this processor does not know
	mv "$bare/usr/bin/picket" "$bare/picket"
	printf '#!/bin/sh\necho no such instruction\nexit 132\n' >"$bare/usr/bin/picket"
	chmod 755 "$bare/usr/bin/picket"
	said=$(in_root "$bare" /bin/sh /postinst) || die "$target: postinst fails where picket does not run: $said"
	[[ $said = *"does not run on this machine"*132*"no such instruction"* ]] || die "$target: where picket does not run postinst says $said"
	mv "$bare/picket" "$bare/usr/bin/picket"
	# no room where it should go
	mkdir "$bare/full"
	mv "$bare/usr/lib/picket" "$bare/full/"
	mkdir "$bare/usr/lib/picket"
	mount -t tmpfs -o ro none "$bare/usr/lib/picket"
	said=$(in_root "$bare" /bin/sh /postinst)
	umount "$bare/usr/lib/picket"
	[[ $said = *"Is there room"*"(/var/cache/picket/program/"* ]] || die "$target: without room the ipk says $said"
	rmdir "$bare/usr/lib/picket"
	mv "$bare/full/picket" "$bare/usr/lib/"
	in_root "$bare" /bin/sh /prerm upgrade
	[ -n "$(ls -A "$bare/usr/lib/picket")" ] || die "$target: an upgrade of the ipk removes what runs"
	in_root "$bare" /bin/sh /prerm remove
	[ -z "$(ls -A "$bare/usr/lib/picket" "$bare/var/cache/picket" | grep -v :)" ] || die "$target: removed, the ipk leaves $(ls -A "$bare/usr/lib/picket" "$bare/var/cache/picket")"
	pass "$target ipk unpacks when installed, and cleans up"

	if [ "$machine" = "$(uname -m)" ]; then # what ran above was not emulated
		folder=build/cross/$target/folder
		for model in "${models[@]}"; do
			"qemu-$machine-static" -cpu "$cpu" "$folder/picket" --library-path "$folder" "$folder/picket.bin" model check "$model" \
				>"$work/check" 2>&1 || die "$target, processor $cpu: model check $model fails: $(tail -n 3 "$work/check")"
		done
		pass "$target on a processor like $cpu: ${#models[@]} models good"
	fi

	# One file, where there is nothing else.
	one=$work/$target-one
	mkdir -p "$one/var/cache"
	cp "$release/picket-$version-linux-$target" "$one/picket"
	prepare "$one"
	with=(HOME=/root) place=/var/cache/picket/program # root's: another user could not read what is in its home
	try "$target one file, first start and after" "$one" /picket
	unpacked=$(echo "$one$place"/*)
	[ -x "$unpacked/picket.bin" ] || die "$target: one file did not unpack into the cache"
	licensed "$target one file" "$unpacked/THIRD-PARTY.gz" glibc
	printf x | dd of="$unpacked/libonnxruntime.so" bs=1 seek=5000000 conv=notrunc status=none
	said=$(in_root "$one" /picket version)
	[[ $said = *"ONNX Runtime $ort ($place/"* ]] || die "$target: one file with a damaged cache says $said"
	cmp -s "$unpacked/libonnxruntime.so" "build/cross/$target/folder/libonnxruntime.so" || die "$target: a damaged cache was not mended"
	pass "$target one file mends a damaged cache"
	rm -rf "$one$place"
	pids=()
	for i in 1 2 3 4; do
		in_root "$one" /picket version >"$work/together$i" &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do wait "$pid" || die "$target: one file started four times at once fails"; done
	for i in 1 2 3 4; do grep -q "ONNX Runtime $ort ($place/" "$work/together$i" || die "$target: started four times at once: $(cat "$work/together$i")"; done
	[ "$(find "$one$place" -mindepth 1 -maxdepth 1 | wc -l)" -eq 1 ] || die "$target: four at once left $(ls -A "$one$place")"
	pass "$target one file, four at once"
	rm -rf "$one/var/cache/picket"
	mount --bind "$one" "$one"
	mount -o remount,bind,ro "$one"
	mounts "$one"
	with=()
	said=$(in_root "$one" /picket version 2>&1)
	[[ $said = "picket "*"ONNX Runtime $ort (/proc/self/fd/"* ]] || die "$target: one file in a read-only root says $said"
	try "$target one file, read-only root, no HOME" "$one" /picket
	if [ "$machine" = "$(uname -m)" ]; then # emulation has neither Landlock nor its packet sockets
		code=0
		env -i PATH="$PATH" unshare --net timeout 4 chroot "$one" /picket run --json -i lo >"$work/run" 2>&1 || code=$?
		[ $code -eq 124 ] && grep -q watching "$work/run" && ! grep -q level=ERROR "$work/run" || die "$target: run in a read-only root ends with $code: $(cat "$work/run")"
		pass "$target one file, read-only root: runs, and ends when told"
	fi
	quick=
done

# The list: whole, right, and signed by the procedure of README.md.
(cd "$release" && sha256sum --quiet -c SHA256SUMS) || die "SHA256SUMS is wrong"
[ "$(wc -l <"$release/SHA256SUMS")" -eq "$(find "$release" -type f ! -name 'SHA256SUMS*' | wc -l)" ] || die "SHA256SUMS does not list every file"
mkdir "$work/signed"
cp "$release"/*.cdx.json "$work/signed/"
minisign -G -W -p "$work/key.pub" -s "$work/key" >/dev/null
(cd "$work" && RELEASE=signed MINISIGN_KEY=key sh ../../../cross/release.sh >stdout 2>&1) || die "release.sh does not sign: $(cat "$work/stdout")"
(cd "$work/signed" && sha256sum --quiet -c SHA256SUMS) || die "SHA256SUMS is wrong where it is signed"
minisign -V -q -p "$work/key.pub" -m "$work/signed/SHA256SUMS" || die "the signature is refused"
echo >>"$work/signed/SHA256SUMS"
! minisign -V -q -p "$work/key.pub" -m "$work/signed/SHA256SUMS" 2>/dev/null || die "a changed list passes"
pass "SHA256SUMS and its signature"

# What versions become, and how package managers order them: a candidate comes before the release, a commit after it,
# and of commits without a tag the later one. apk's rules are those of src/version.c in apk-tools 2, which counts in 32 bits.
while read -r epoch v want; do
	got=$(VERSION=$v SOURCE_DATE_EPOCH=$epoch sh cross/package.sh version)
	[ "$got" = "$want" ] || die "version $v is packed as $got"
	echo "$got"
done >"$work/versions" <<-'VERSIONS'
	1796031838 fff-dirty 0.0.0+git20261130094358.fff.dirty 0.0.0_git20261130_p094358
	1796031839 abc 0.0.0+git20261130094359.abc 0.0.0_git20261130_p094359
	1796076000 012 0.0.0+git20261130220000.012 0.0.0_git20261130_p220000
	1796083200 000 0.0.0+git20261201000000.000 0.0.0_git20261201_p000000
	0 v1.2.3-rc1 1.2.3~rc1 1.2.3_rc1
	0 v1.2.3-rc.1-4-gabc 1.2.3~rc.1+4.gabc 1.2.3_rc1_p4
	0 v1.2.3 1.2.3 1.2.3
	0 v1.2.3-4-gabc 1.2.3+4.gabc 1.2.3_p4
	0 v1.2.3-12-gaaa 1.2.3+12.gaaa 1.2.3_p12
VERSIONS
[ "$(wc -l <"$work/versions")" -eq 9 ] || die "a version is packed wrongly"
while read -r new _; do
	[ -z "${old:-}" ] || [ "$old $new" = "1.2.3~rc1 1.2.3~rc.1+4.gabc" ] || {
		dpkg --compare-versions "$old" lt "$new" || die "dpkg: $old is not older than $new"
		[ "$(rpm --eval "%{lua:print(rpm.vercmp('$old', '$new'))}")" = -1 ] || die "rpm: $old is not older than $new"
	}
	old=$new
done <"$work/versions"
python3 - "$work/versions" <<'PY' || die "apk: versions are out of order"
import re, sys
SUFFIX = {"alpha": -4, "beta": -3, "pre": -2, "rc": -1, "cvs": 1, "svn": 2, "git": 3, "hg": 4, "p": 5}
def key(v):
    m = re.fullmatch(r"(\d+(?:\.\d+)*)((?:_[a-z]+\d*)*)", v)
    parts = re.findall(r"_([a-z]+)(\d*)", m[2])
    numbers = [int(n) for n in m[1].split(".")] + [int(n or 0) for _, n in parts]
    assert max(numbers) < 2**31, v
    return numbers[: -len(parts) or None], [(SUFFIX[s], int(n or 0)) for s, n in parts] + [(0, 0)]
keys = [key(line.split()[1]) for line in open(sys.argv[1])]
assert all(a < b for a, b in zip(keys, keys[1:])), keys
PY
pass "versions, and their order for dpkg, rpm and apk"

# The unit: known to systemd, and its exposure at most 2.0.
unit=$work/picket.service
sed "s,/usr/bin/picket,$plain," cross/files/picket.service >"$unit"
said=$(systemd-analyze verify --man=no "$unit" 2>&1) || die "systemd-analyze verify: $said"
[ -z "$said" ] || die "systemd-analyze verify: $said"
said=$(systemd-analyze security --offline=true --threshold=20 --no-pager "$unit") || die "systemd-analyze security: $(echo "$said" | tail -n 2)"
pass "unit: $(echo "$said" | grep -o 'Overall exposure.*')"

echo "$passed passed, 0 failed"
