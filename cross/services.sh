#!/bin/bash
# Starts Picket as Alpine's and OpenWrt's services do, from amd64's packages in build/release, as root, in namespaces
# of its own: under Debian's OpenRC, and by the command that the script for procd gives (procd itself is not to be had).
# Each must run as the user picket with CAP_NET_RAW alone, and its queue must be that user's.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
	echo "cross-test: $*" >&2
	exit 1
}
if [ -z "${PICKET_NAMESPACE:-}" ]; then
	[ "$(id -u)" -eq 0 ] || die "the services are started as root"
	DEBIAN_FIXES=optional sh cross/debian.sh trixie amd64 build/cross/amd64/openrc openrc busybox-static
	PICKET_NAMESPACE=1 exec unshare --mount --propagation private --pid --fork --kill-child --net bash "$0"
fi
release=$PWD/build/release
work=$PWD/build/cross/services
rm -rf "$work"
mkdir -p "$work"
ip link set lo up

prepare() { # ROOT
	mkdir -p "$1"
	cp -a build/cross/amd64/openrc/root/. "$1"
	for d in bin sbin lib lib64; do [ -e "$1/$d" ] || ln -s "usr/$d" "$1/$d"; done
	for a in sh cat chown cut grep ls mkdir rm sed tail tar touch tr; do [ -e "$1/bin/$a" ] || ln -s busybox "$1/bin/$a"; done
	mkdir -p "$1/proc" "$1/sys" "$1/dev" "$1/run" "$1/tmp" "$1/etc" "$1/var/lib" "$1/var/log"
	[ -e "$1/var/run" ] || ln -s /run "$1/var/run"
	echo root:x:0:0::/root:/bin/sh >"$1/etc/passwd"
	echo root:x:0: >"$1/etc/group"
	: >"$1/etc/shadow"
	# stand-ins for two that Debian's busybox lacks
	printf '#!/bin/sh\nfor name; do :; done\n! grep -qs "^$name:" /etc/group || exit 1\necho "$name:x:100:" >>/etc/group\n' >"$1/bin/addgroup"
	printf '#!/bin/sh\nfor name; do :; done\n! grep -qs "^$name:" /etc/passwd || exit 1\necho "$name:x:100:100::/:/sbin/nologin" >>/etc/passwd\n' >"$1/bin/adduser"
	chmod 755 "$1/bin/addgroup" "$1/bin/adduser"
	mount -t proc none "$1/proc"
	mount --bind /sys "$1/sys"
	mount -t tmpfs none "$1/dev"
	mknod -m 666 "$1/dev/null" c 1 3
	mknod -m 666 "$1/dev/urandom" c 1 9
}
in_root() { # ROOT COMMAND
	local root=$1
	shift
	env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin chroot "$root" "$@"
}
config() { # ROOT: an interface, and a broker that does not answer, so that there is a queue
	printf 'interface = ["lo"]\nmqtt = ["tcp://127.0.0.1:1"]\ngateway = "gw"\n' >"$1/etc/picket/picket.toml"
}
daemon() { pgrep -P "$1" -f 'picket.*run --config' | head -n 1 || :; }
# running NAME ROOT STATE LOG PID: waits for the daemon, and looks at its rights.
running() {
	local status uid
	for _ in $(seq 100); do
		! grep -q watching "$4" 2>/dev/null || break
		sleep 0.2
	done
	grep -q watching "$4" || die "$1 does not start: $(cat "$4")"
	! grep -q 'level=ERROR' "$4" || die "$1: $(grep level=ERROR "$4")"
	uid=$(sed -n 's/^picket:x:\([0-9]*\):.*/\1/p' "$2/etc/passwd")
	[ "${uid:-0}" -ne 0 ] || die "$1: there is no user picket: $(cat "$2/etc/passwd")"
	status=$(grep -E '^(Uid|CapEff|CapPrm|CapBnd):' "/proc/$5/status" | tr -s '\t' ' ')
	[[ $status = *"Uid: $uid $uid $uid $uid"* && $status = *"CapEff: 0000000000002000"* && $status = *"CapPrm: 0000000000002000"* ]] ||
		die "$1 runs with $status"
	[ "$(stat -c '%u %a' "$2$3")" = "$uid 700" ] || die "$1: $3 is $(stat -c '%u %a' "$2$3")"
	[ "$(stat -c '%u %a' "$2$3/queue")" = "$uid 700" ] || die "$1: the queue is $(stat -c '%u %a' "$2$3/queue")"
	# a port scan, whose events the queue must take
	python3 -c 'import socket
for port in range(1000, 3000):
    with socket.socket() as s:
        s.connect_ex(("127.0.0.1", port))'
	for _ in $(seq 50); do
		[ -z "$(find "$2$3/queue" -type f -size +100c)" ] || return 0
		sleep 0.2
	done
	die "$1: no event in the queue: $(ls -l "$2$3/queue"; tail -n 3 "$4")"
}
mount -t proc none /proc

# Alpine: the apk, its pre-install, OpenRC.
root=$work/openrc
prepare "$root"
in_root "$root" tar -xz <"$(echo "$release"/picket_*_x86_64.apk)" 2>/dev/null || die "the apk does not unpack"
in_root "$root" sh /.pre-install 1.2.3
in_root "$root" sh /.pre-upgrade 1.2.4 1.2.3 || die "the apk's pre-upgrade fails where the user is there"
in_root "$root" sh /.post-install 1.2.3
config "$root"
mkdir -p "$root/run/openrc/"{daemons,exclusive,failed,hotplugged,inactive,options,scheduled,started,starting,stopping,tmp,wasinactive} "$root/etc/runlevels/default" "$root/var/lib/picket/queue"
chmod 700 "$root/var/lib/picket" "$root/var/lib/picket/queue" # an older package's, which are root's
touch "$root/run/openrc/softlevel"
printf '#!/sbin/openrc-run\ndepend() {\n\tprovide net\n}\nstart() {\n\t:\n}\n' >"$root/etc/init.d/networking"
chmod 755 "$root/etc/init.d/networking"
in_root "$root" rc-service picket start >"$work/start" 2>&1 || die "OpenRC does not start picket: $(cat "$work/start")"
supervisor=$(pgrep -f 'supervise-daemon picket' | head -n 1)
sleep 1
running OpenRC "$root" /var/lib/picket "$root/var/log/picket.log" "$(daemon "$supervisor")"
in_root "$root" rc-service picket reload >"$work/start" 2>&1 || die "OpenRC does not reload picket: $(cat "$work/start")"
for _ in $(seq 50); do ! grep -q reload "$root/var/log/picket.log" || break; sleep 0.2; done
grep -q 'reloaded' "$root/var/log/picket.log" || die "OpenRC: a reload says $(tail -n 3 "$root/var/log/picket.log")"
first=$(daemon "$supervisor")
tr '\0' '\n' <"/proc/$first/environ" | grep -qx CREDENTIALS_DIRECTORY=/etc/picket || die "OpenRC: the daemon finds no mqtt-password"
: >"$root/var/log/picket.log"
kill -9 "$first"
for _ in $(seq 60); do
	again=$(daemon "$supervisor")
	[ -z "$again" ] || [ "$again" = "$first" ] || break
	sleep 0.2
done
running "OpenRC, after a kill," "$root" /var/lib/picket "$root/var/log/picket.log" "$again"
in_root "$root" rc-service picket stop >"$work/start" 2>&1 || die "OpenRC does not stop picket: $(cat "$work/start")"
[ -z "$(pgrep -f 'picket.*run --config')" ] || die "OpenRC, told to stop, leaves $(pgrep -af picket)"
echo "ok   OpenRC $(in_root "$root" openrc --version | grep -o '[0-9][0-9.]*' | head -n 1) runs the apk's service as picket with CAP_NET_RAW alone, reloads, restarts and stops it"

# OpenWrt: the ipk, the script's command; the functions are what its functions.sh has.
root=$work/procd
prepare "$root"
tar -xzf "$(echo "$release"/picket_*_amd64.ipk)" -O ./data.tar.gz | in_root "$root" tar -xz
config "$root"
mkdir -m 700 "$root/etc/picket/state"
said=$(in_root "$root" sh -c '
	user_exists() { grep -qs "^$1:" /etc/passwd; }
	group_add_next() { echo "$1:x:65536:" >>/etc/group; echo 65536; }
	user_add() { echo "$1:x:${2:-65536}:$3:$1:/var/run/$1:/bin/false" >>/etc/passwd; }
	procd_open_instance() { :; }; procd_close_instance() { :; }
	procd_set_param() { [ "$1" != command ] || { shift; echo "$@"; }; }
	. /etc/init.d/picket; start_service >/command; start_service >/again; cmp /command /again 2>/dev/null; cat /command; grep -c picket /etc/passwd')
[ "$said" = "/usr/bin/picket run --config /etc/picket/picket.toml --user picket --state-dir /etc/picket/state
1" ] || die "the script for procd says $said"
# shellcheck disable=SC2046 # it is words
env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin chroot "$root" $(head -n 1 <<<"$said") >"$work/log" 2>&1 &
running "procd's command" "$root" /etc/picket/state "$work/log" $!
kill $!
wait $! || die "procd's command ends with $?: $(tail -n 3 "$work/log")"
# a user and a directory that the config names
printf 'user = "other"\n' >>"$root/etc/picket/picket.toml"
echo other:x:1234:1234::/:/bin/false >>"$root/etc/passwd"
said=$(in_root "$root" sh -c 'user_exists() { return 1; }; user_add() { echo added; }; procd_open_instance() { :; }; procd_close_instance() { :; }
	procd_set_param() { [ "$1" != command ] || { shift; echo "$@"; }; }; procd_send_signal() { echo signal "$@"; }
	. /etc/init.d/picket; start_service; reload_service; echo "state-dir = \"/mnt/queue\"" >>/etc/picket/picket.toml; start_service')
[ "$said" = "/usr/bin/picket run --config /etc/picket/picket.toml --user other --state-dir /etc/picket/state
signal picket * HUP
/usr/bin/picket run --config /etc/picket/picket.toml --user other" ] || die "with a config of its own the script for procd says $said"
[ "$(stat -c %u "$root/etc/picket/state")" = 1234 ] || die "the state is not the config's user's"
[ "$(cat "$root/lib/upgrade/keep.d/picket")" = /etc/picket/ ] || die "a sysupgrade does not keep /etc/picket"
echo "ok   the command of the script for procd runs as picket with CAP_NET_RAW alone, or as the config says"
