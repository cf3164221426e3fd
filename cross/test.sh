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
	for need in unshare:util-linux qemu-aarch64-static:qemu-user-static rpm:rpm systemd-analyze:systemd minisign:minisign; do
		command -v "${need%%:*}" >/dev/null || die "${need%%:*} is missing: apt-get install ${need##*:}"
	done
	for target in "$@"; do
		# shellcheck source=/dev/null
		. "cross/$target.sh"
		old=bullseye
		[ "$target" != riscv64 ] || old=trixie # its first release
		sh cross/debian.sh $old "$debian" "build/cross/$target/system" libstdc++6 dash coreutils
		sh cross/debian.sh $old "$debian" "build/cross/$target/busybox" busybox-static
	done
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
	[[ $said = "picket ${version/#devel/(devel)} ("*"linux/$goarch)"*"ONNX Runtime 1.21.0"* ]] || die "$name: version says $said"
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

for target in "$@"; do
	# shellcheck source=/dev/null
	. "cross/$target.sh"
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

	dpkg-deb -x "$release"/picket_*_"$debian".deb "$system"
	if [ $target = arm64 ] || [ $target = amd64 ]; then try "$target deb, Debian 11" "$system" /usr/bin/picket; else try "$target deb" "$system" /usr/bin/picket; fi

	# its scripts, before a systemctl that only tells
	dpkg-deb -e "$release"/picket_*_"$debian".deb "$system/scripts"
	mkdir -p "$system/run/systemd/system" "$system/var/lib/private/picket/queue"
	printf '#!/bin/sh\necho "$*" >>/told\n' >"$system/usr/bin/systemctl"
	chmod 755 "$system/usr/bin/systemctl"
	in_root "$system" /bin/sh /scripts/postinst configure 1.2.3
	in_root "$system" /bin/sh /scripts/prerm upgrade 1.2.5
	in_root "$system" /bin/sh /scripts/prerm remove
	[ "$(cat "$system/told")" = "daemon-reload
try-restart picket.service
disable --now picket.service" ] || die "$target: the deb's scripts told systemd: $(cat "$system/told")"
	in_root "$system" /bin/sh /scripts/postrm remove
	[ -d "$system/var/lib/private/picket/queue" ] || die "$target: removed, not purged, the deb deletes the queue"
	in_root "$system" /bin/sh /scripts/postrm purge
	[ ! -e "$system/var/lib/private/picket" ] || die "$target: purged, the deb leaves the queue"
	pass "$target deb restarts what runs, and cleans up"
	if [ $target = amd64 ]; then
		"$plain" run --config-sample >"$work/sample"
		bash cross/upgrade.sh "$release"/picket_*_amd64.deb "$system" "$work/sample"
		pass "$target deb: dpkg upgrades without a terminal, and keeps an edited config"
	fi

	quick=1
	mkdir -p "$system/rpm" "$system/opt"
	rpm --root "$system/rpm" --dbpath /var/lib/rpm -i --nodeps --ignorearch --noscripts "$release"/picket-*."$rpm".rpm 2>"$work/stderr" ||
		die "$target rpm: $(cat "$work/stderr")"
	try "$target rpm" "$system" /rpm/usr/bin/picket
	tar -xzf "$release/picket-$version-linux-$target.tar.gz" -C "$system/opt"
	try "$target tar.gz" "$system" "/opt/picket-$version-linux-$target/picket"
	tar -xzf "$release"/picket_*_"$apk".apk -C "$bare" --warning=none 2>"$work/stderr" || die "$target apk: $(cat "$work/stderr")"
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
	# procd's side of the init script
	said=$(in_root "$bare" /bin/sh -c 'procd_open_instance() { :; }; procd_close_instance() { :; }
		procd_set_param() { [ "$1" != command ] || echo "$@"; }; procd_send_signal() { echo signal "$@"; }
		. /etc/init.d/picket; start_service; reload_service; echo "state-dir = \"/mnt/queue\"" >/etc/picket/picket.toml; start_service')
	[ "$said" = "command /usr/bin/picket run --config /etc/picket/picket.toml --state-dir /etc/picket/state
signal picket * HUP
command /usr/bin/picket run --config /etc/picket/picket.toml" ] || die "$target: the init script says $said"
	[ "$(stat -c %a "$bare/etc/picket/state")" = 700 ] || die "$target: the queue is not private"
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
	printf x | dd of="$unpacked/libonnxruntime.so" bs=1 seek=5000000 conv=notrunc status=none
	said=$(in_root "$one" /picket version)
	[[ $said = *"ONNX Runtime 1.21.0 ($place/"* ]] || die "$target: one file with a damaged cache says $said"
	cmp -s "$unpacked/libonnxruntime.so" "build/cross/$target/folder/libonnxruntime.so" || die "$target: a damaged cache was not mended"
	pass "$target one file mends a damaged cache"
	rm -rf "$one$place"
	pids=()
	for i in 1 2 3 4; do
		in_root "$one" /picket version >"$work/together$i" &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do wait "$pid" || die "$target: one file started four times at once fails"; done
	for i in 1 2 3 4; do grep -q "ONNX Runtime 1.21.0 ($place/" "$work/together$i" || die "$target: started four times at once: $(cat "$work/together$i")"; done
	[ "$(find "$one$place" -mindepth 1 -maxdepth 1 | wc -l)" -eq 1 ] || die "$target: four at once left $(ls -A "$one$place")"
	pass "$target one file, four at once"
	rm -rf "$one/var/cache/picket"
	mount --bind "$one" "$one"
	mount -o remount,bind,ro "$one"
	mounts "$one"
	with=()
	said=$(in_root "$one" /picket version)
	[[ $said = *"ONNX Runtime 1.21.0 (/proc/self/fd/"* ]] || die "$target: one file in a read-only root says $said"
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

# What versions become: a candidate comes before the release, a commit after it.
while read -r v want; do
	[ "$(VERSION=$v SOURCE_DATE_EPOCH=0 sh cross/package.sh version)" = "$want" ] || die "version $v is packed as $(VERSION=$v SOURCE_DATE_EPOCH=0 sh cross/package.sh version)"
done <<-'VERSIONS'
	v1.2.3 1.2.3 1.2.3
	v1.2.3-rc1 1.2.3~rc1 1.2.3_rc1
	v1.2.3-rc.1-4-gabc 1.2.3~rc.1+4.gabc 1.2.3_rc1_p4
	v1.2.3-4-gabc 1.2.3+4.gabc 1.2.3_p4
	abc-dirty 0.0.0+git19700101.abc.dirty 0.0.0_git19700101
VERSIONS
pass "versions"

# The unit: known to systemd, and its exposure at most 2.0.
unit=$work/picket.service
sed "s,/usr/bin/picket,$plain," cross/files/picket.service >"$unit"
said=$(systemd-analyze verify --man=no "$unit" 2>&1) || die "systemd-analyze verify: $said"
[ -z "$said" ] || die "systemd-analyze verify: $said"
said=$(systemd-analyze security --offline=true --threshold=20 --no-pager "$unit") || die "systemd-analyze security: $(echo "$said" | tail -n 2)"
pass "unit: $(echo "$said" | grep -o 'Overall exposure.*')"

echo "$passed passed, 0 failed"
