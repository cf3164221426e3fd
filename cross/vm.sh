#!/bin/bash
# Installs a package of build/release in a virtual machine of Debian 13 with Debian's kernel and systemd, watches
# traffic there, cuts the power and looks whether anything was lost:
#
#	bash cross/vm.sh ARCH short|long	(amd64, arm64 or armhf)
#
# qemu emulates the oldest processor that is promised, without KVM. The machine's clock counts instructions, a billion
# a second: a busy host makes the test longer, but changes no time-out and no measured time in it. The disk is made once
# (vm/root.sh). There is no network: cross/vm/guest.sh runs inside at each boot, and its lines come over the serial
# console; build/vm/ARCH/work keeps them. CPU is another of qemu's processors.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
	echo "vm-test: $*" >&2
	exit 1
}
arch=$1 form=$2
case $arch in
arm64) qemu=aarch64 package=qemu-system-arm machine=virt cpu=${CPU:-cortex-a53} console=ttyAMA0 bus=device ;;
armhf) qemu=arm package=qemu-system-arm machine=virt cpu=${CPU:-cortex-a7} console=ttyAMA0 bus=device ;;
amd64) qemu=x86_64 package=qemu-system-x86 machine=q35 cpu=${CPU:-Nehalem} console=ttyS0 bus=pci ;;
*) die "no virtual machine for $arch" ;;
esac
for need in qemu-system-$qemu:$package qemu-aarch64-static:qemu-user-static mmdebstrap:mmdebstrap unshare:util-linux depmod:kmod cpio:cpio \
	mke2fs:e2fsprogs xz:xz-utils; do
	command -v "${need%%:*}" >/dev/null || [ -x "/usr/sbin/${need%%:*}" ] || die "${need%%:*} is missing: apt-get install ${need##*:}"
done
[ "$(id -u)" = 0 ] || die "only root can make the disk, whose files have many owners"
debs=(build/release/picket_*_"$arch".deb)
[ -e "${debs[0]}" ] || die "no ${debs[0]}: make release"

began=$SECONDS
bash cross/vm/root.sh "$arch"
dir=build/vm/$arch
[ $((SECONDS - began)) -lt 2 ] || echo "     the disk was made in $((SECONDS - began)) s: Debian 13, $(du -m "$dir/disk" | cut -f1) MB"

# What is handed over: the package, an older one of the same content, captures.
work=$dir/work
rm -rf "$work"
mkdir -p "$work/files"
cp "${debs[0]}" "$work/files/new.deb"
if [ "$form" = long ]; then
	dpkg-deb -R "${debs[0]}" "$work/old"
	sed -i 's/^Version: .*/Version: 0.0.0~older/' "$work/old/DEBIAN/control"
	dpkg-deb -Znone -b "$work/old" "$work/files/old.deb" >/dev/null
	rm -rf "$work/old"
fi
cp cross/vm/guest.sh "$work/files/"
for capture in scan brute udp-scan sip-flood flood gtp-u; do gzip -dc "testdata/$capture.pcap.gz" >"$work/files/$capture.pcap"; done
tar -C "$work/files" -cf "$work/files.tar" .
rm -rf "$work/files"
cp --sparse=always "$dir/disk" "$work/disk"
mkfifo "$work/console"

passed=0 failed=0 queued=0 pid='' limit=2400 # seconds of a boot, on a busy machine
trap '[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || :' EXIT
# boot STAGE,... OPTION...: until the stages are over. It always ends with the power cut.
boot() {
	local stages=$1 memory=256 began=$SECONDS line over=
	shift
	[ "${1:-}" != -m ] || { memory=$2; shift 2; }
	echo "== $arch, $cpu, $memory MB: $stages"
	nice -n 5 "qemu-system-$qemu" -M $machine -cpu "$cpu" -accel tcg -icount shift=0 -m "$memory" -nic none -display none -no-reboot \
		-kernel "$dir/vmlinuz" -initrd "$dir/initrd" \
		-append "console=$console quiet systemd.show_status=0 panic=-1 picket.stages=$stages picket.queued=$queued picket.memory=$memory" \
		-drive "file=$work/disk,if=none,id=root,format=raw" -device "virtio-blk-$bus,drive=root,serial=root" \
		-drive "file=$work/files.tar,if=none,id=files,format=raw,readonly=on" -device "virtio-blk-$bus,drive=files,serial=files" \
		-serial stdio -monitor none "$@" </dev/null >"$work/console" 2>&1 &
	pid=$!
	while IFS= read -r -t $((limit - SECONDS + began)) line; do
		line=${line%$'\r'}
		printf '%4d s  %s\n' $((SECONDS - began)) "$line" | tee -a "$work/$stages.log"
		case $line in
		"ok "*) passed=$((passed + 1)) ;;
		"FAIL "*) failed=$((failed + 1)) ;;
		"vm: cut "*)
			queued=${line##* }
			sleep 0.5 # amid the traffic
			;;&
		"vm: "*)
			over=1
			break
			;;
		esac
	done <"$work/console"
	if [ -z "$over" ]; then
		echo "FAIL $stages: the machine ended, or was not ready in $limit s"
		failed=$((failed + 1))
	fi
	echo "     $((SECONDS - began)) s, of the processor $(awk -v t="$(getconf CLK_TCK)" '{ printf "%d", ($14 + $15) / t }' "/proc/$pid/stat" 2>/dev/null) s"
	kill -9 "$pid" 2>/dev/null || : # it may have ended by itself
	wait "$pid" 2>/dev/null || :
	pid=
	[ $failed -eq 0 ] || { echo "$passed passed, $failed failed"; exit 1; }
}

boot first
if [ "$form" = short ]; then
	boot again
else
	boot again,link
	boot small,clock -m 128 -rtc base=1970-01-01T00:00:00
	boot service
fi
echo "$passed passed, $failed failed"
