#!/bin/bash
# Makes the disk, the kernel and the initramfs of a virtual machine from Debian 13's packages, into build/vm/ARCH:
#
#	bash cross/vm/root.sh ARCH	(Debian's name: amd64, arm64, armhf, riscv64)
#
# Debian's kernel has the drivers of disk and file system as modules, so the initramfs holds those, and busybox; the
# disk has veth and autofs4 besides. The disk knows nothing of Picket: vm.sh hands that over at each boot.
# Packages are configured under qemu's user emulation, in a user namespace in which it is registered.
set -euo pipefail
cd "$(dirname "$0")/../.."

arch=$1
dir=$PWD/build/vm/$arch
stamp="$arch $(sha256sum <cross/vm/root.sh)"
[ "$(cat "$dir/done" 2>/dev/null)" != "$stamp" ] || exit 0
case $arch in
armhf) kernel=armmp emulator=arm ;;
arm64) kernel=arm64 emulator=aarch64 ;;
*) kernel=$arch emulator=$arch ;;
esac
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(sh cross/debian.sh mirror)

if [ -z "${VM_NAMESPACE:-}" ]; then
	rm -rf "$dir"
	mkdir -p "$dir"
	# All users are mapped to themselves, which nobody but root outside may do.
	mkfifo "$dir/in" "$dir/mapped"
	VM_NAMESPACE=1 unshare --user --mount --propagation private bash "$0" "$arch" >"$dir/log" 2>&1 &
	read -r -t 60 _ <>"$dir/in" || { tail -n 20 "$dir/log" >&2; exit 1; } # where user namespaces are forbidden
	echo 0 0 65536 >/proc/$!/uid_map
	echo 0 0 65536 >/proc/$!/gid_map
	echo >"$dir/mapped"
	wait $! || { tail -n 20 "$dir/log" >&2; exit 1; }
else
	echo >"$dir/in"
	read -r _ <"$dir/mapped"
	mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
	[ "$arch" = amd64 ] || cat "/usr/lib/binfmt.d/qemu-$emulator.conf" >/proc/sys/fs/binfmt_misc/register
	# shellcheck disable=SC2016 # mmdebstrap's shell is to expand these
	exec mmdebstrap --mode=root --variant=apt --architectures="$arch" --dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--include=systemd-sysv,udev,kmod,iproute2,mosquitto,mosquitto-clients,tcpreplay,busybox-static,libstdc++6 \
		--customize-hook='export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG; cd "$1/.." &&
			apt-get download "$(apt-cache depends linux-image-'"$kernel"' | sed -n "s/.*Depends: \(linux-image-.*\)/\1/p")"' \
		--customize-hook='chroot "$1" systemctl enable systemd-networkd' \
		--customize-hook='chroot "$1" systemctl disable mosquitto' \
		--customize-hook='chroot "$1" systemctl mask serial-getty@.service getty@.service apt-daily.timer apt-daily-upgrade.timer' \
		trixie "$dir/root" "deb [signed-by=$keys] $mirror trixie main"
fi

cd "$dir"
dpkg-deb -x linux-image-*.deb kernel
ln -s usr/lib kernel/lib
release=$(basename kernel/lib/modules/*)
mv kernel/boot/vmlinuz-* vmlinuz
depmod -b kernel "$release"
modules() { modprobe -d kernel -S "$release" -D "$@" | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'; }

mkdir -p initramfs/{proc,sys,dev,root}
cp root/usr/bin/busybox initramfs/
for module in $(modules -a virtio_mmio virtio_pci virtio_blk ext4); do
	xz -dc "$module" >"initramfs/$(basename "$module" .xz)"
	basename "$module" .xz
done >initramfs/modules
cat >initramfs/init <<'INIT'
#!/busybox sh
/busybox mount -t proc proc /proc
/busybox mount -t sysfs sysfs /sys
/busybox mount -t devtmpfs devtmpfs /dev
while read -r module; do /busybox insmod "/$module"; done </modules
until disk=$(/busybox grep -l '^root' /sys/block/vd*/serial); do /busybox sleep 0.1; done
disk=${disk%/serial}
# What a program does not sync itself is not on the disk for ten minutes, so that a power cut takes it.
/busybox mount -t ext4 -o noatime,commit=600 "/dev/${disk##*/}" /root
exec /busybox switch_root /root /sbin/init
INIT
chmod 755 initramfs/init
(cd initramfs && find . | cpio --quiet -o -H newc | gzip -1) >initrd

for module in $(modules -a veth autofs4); do
	mkdir -p "root/usr/lib/modules/$release"
	cp "$module" "root/usr/lib/modules/$release/"
done
cp kernel/lib/modules/"$release"/modules.{builtin,builtin.modinfo,order} "root/usr/lib/modules/$release/"
depmod -b root "$release"
echo gateway >root/etc/hostname
printf '127.0.0.1 localhost gateway\n' >root/etc/hosts
printf '%032d\n' 1 >root/etc/machine-id # so that systemd takes no boot for the first one
# A gateway's network: nobody answers its DHCP on lan0, whose other end is down until the test sets it up.
printf '[NetDev]\nName=lan0\nKind=veth\n[Peer]\nName=peer0\n' >root/etc/systemd/network/lan0.netdev
printf '[Match]\nName=lan0\n[Network]\nDHCP=yes\n' >root/etc/systemd/network/lan0.network
printf '[Match]\nName=peer0\n[Link]\nUnmanaged=yes\n' >root/etc/systemd/network/peer0.network
printf 'listener 1883 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location /var/lib/mosquitto/\n' >root/etc/mosquitto/mosquitto.conf
# Debian's mosquitto waits for network-online.target, so for two minutes where a link is down.
sed '/network-online/d' root/usr/lib/systemd/system/mosquitto.service >root/etc/systemd/system/mosquitto.service
cat >root/etc/systemd/system/vm-test.service <<'UNIT'
[Service]
ExecStart=/bin/sh -c 'd=$$(grep -l ^files /sys/block/vd*/serial) && d=$${d%%/serial} && mkdir -p /var/vm && \
	tar -xf /dev/$${d##*/} -C /var/vm && exec sh /var/vm/guest.sh'
StandardOutput=file:/dev/console
StandardError=inherit
UNIT
ln -s ../vm-test.service root/etc/systemd/system/multi-user.target.wants/vm-test.service
touch root/etc/.updated root/var/.updated # all caches are of today

truncate -s 1G disk
mke2fs -q -t ext4 -d root disk
rm -rf root kernel initramfs linux-image-*.deb in mapped
echo "$stamp" >"$dir/done"
