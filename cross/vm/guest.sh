#!/bin/sh
# Runs inside the virtual machine of vm.sh, the stages of a boot that the kernel's command line names. Its lines go to
# the console: "ok ..." and "FAIL ...", "vm: end" when they are over, "vm: cut N" when the power is to be cut and the
# queue holds events up to number N.
set -u
cd /var/vm || exit 1
echo # after what systemd wrote to the terminal
word() { sed -n "s/.*picket\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
uptime() { cut -d' ' -f1 /proc/uptime; }
since() { echo "$(uptime) $1" | awk '{ printf "%.1f", $1 - $2 }'; }
say() { echo "     $*"; }
ok() { echo "ok   $stage: $*"; }
end() {
	sync
	echo "vm: end"
	exec sleep infinity
}
fail() {
	echo "FAIL $stage: $*"
	systemctl --no-pager -l status picket | head -n 12
	journalctl --no-pager -b -o cat -u picket -n 30 | cut -c1-250
	tail -n 4 received | cut -c1-250
	end
}
# within SECONDS WHAT COMMAND...: the command succeeds within that time.
within() {
	until=$(($(cut -d. -f1 /proc/uptime) + $1)) what=$2 # not the clock, which is stepped
	shift 2
	until "$@"; do
		[ "$(cut -d. -f1 /proc/uptime)" -lt $until ] || fail "$what"
		sleep 0.5
	done
}
unit() { systemctl show -P "$1" picket; }
active() { [ "$(unit ActiveState)" = active ]; }
inactive() { [ "$(unit ActiveState)" = inactive ]; }
metric() { busybox wget -q -O - http://127.0.0.1:9090/metrics | awk -v n="picket_$1" '$1 == n { print $2 }'; }
empty() { [ "$(metric queue_events)" = 0 ]; }
# The numbers of all events that the subscriber has got, in any boot.
numbers() { sed -n 's/^[^ ]*\/event .*"sequence":\([0-9]*\).*/\1/p' received; }
last() { numbers | sort -n | tail -n 1; }
reached() { [ "$(last)" -ge "$1" ]; }
fresh() { grep '/event .*"action":"incident-new"' received | grep -e "${1:-.}"; }
more_fresh() { [ "$(fresh "$2" | wc -l)" -gt "$1" ]; }
restarted() { [ "$(unit NRestarts)" = 1 ]; }
queued() { [ "$(metric queue_events)" -ge "$1" ]; }
no_gap() { numbers | sort -nu | awk '$1 != NR { exit 1 }' || fail "a gap in event.sequence: $(numbers | sort -nu | tr '\n' ' ')"; }

broker() {
	! pidof mosquitto_sub >/dev/null || return 0
	systemctl start mosquitto || fail "mosquitto does not start"
	# A session that the broker keeps: events that come before the subscriber is back wait for it.
	mosquitto_sub -i monitor -c -q 1 -v -t 'picket/#' >>received &
}
link_up() {
	ip link set peer0 up
	within 20 "lan0 has no carrier" grep -q 1 /sys/class/net/lan0/carrier
}
replay() { for capture; do tcpreplay -q -i peer0 --mbps 3 "$capture.pcap" >/dev/null 2>&1 || fail "tcpreplay of $capture"; done; }
# an_event CAPTURE WHAT [PATTERN]: traffic gives a new incident, and the subscriber gets its event. The attackers of scan
# and gtp-u are not the same one, whose incident goes on.
an_event() {
	before=$(fresh "${3:-}" | wc -l)
	replay "$1"
	sent=$(uptime)
	within 60 "$2: no event" more_fresh "$before" "${3:-}"
	ok "$2: event $(last), $(since "$sent") s after the last packet"
}
memory() { sed -n 's/^\(VmHWM\|VmRSS\):[[:space:]]*\([0-9]*\) kB/\1 \2/p' "/proc/$(unit MainPID)/status" | awk '{ printf "%s %d MiB ", $1, $2 / 1024 }'; }
ready() { # since the kernel began, and since systemd was asked for it
	echo "$(unit ActiveEnterTimestampMonotonic) $(unit InactiveExitTimestampMonotonic)" |
		awk '{ printf "READY %.1f s after the kernel began, %.1f s after the service", $1 / 1e6, ($1 - $2) / 1e6 }'
}

first() {
	say "Linux $(uname -r), $(systemctl --version | head -n 1)"
	began=$(uptime)
	apt-get install -y -q ./new.deb </dev/null >apt.log 2>&1 || fail "apt-get install: $(tail -n 5 apt.log)"
	ok "apt-get install ./picket_*_$(dpkg --print-architecture).deb, $(since "$began") s; $(grep -c . apt.log) lines of output"
	said=$(picket version 2>&1) || fail "picket version: $said"
	ok "$said"
	! active || fail "installed, it runs without having been asked to"
	cat >/etc/picket/picket.toml <<-'CONFIG'
		interface = ["lan0"]
		mqtt = ["mqtt://127.0.0.1"]
		listen = "9090"
	CONFIG
	said=$(picket run --check --config /etc/picket/picket.toml 2>&1) || fail "run --check: $said"
	broker
	systemctl enable --now picket 2>&1 || fail "the unit does not start"
	active || fail "the unit is not active"
	ok "the unit as shipped starts with its link down: $(ready); $(memory)"
	link_up
	an_event scan "first traffic"
	say "$(fresh | head -n 1 | cut -c1-400)"
	systemctl stop mosquitto
	sync # what the subscriber has got so far; nothing after this is written but by Picket
	replay brute udp-scan sip-flood
	within 60 "no event is queued while the broker is away" queued 3
	active || fail "the service ends while the broker is away"
	echo "vm: cut $(($(last) + $(metric queue_events)))"
	while :; do replay flood; done
}

again() {
	within 90 "not active after the power cut, with its link down" active
	grep -q 0 /sys/class/net/lan0/carrier || fail "the link is not down"
	! systemctl -q is-active network-online.target || fail "the network is online without a link"
	ok "after the power cut, link down and network not online: $(ready), $(unit NRestarts) restarts"
	broker
	within 60 "the queue does not get empty" empty
	within 20 "events up to $(word queued) were queued, up to $(last) came" reached "$(word queued)"
	no_gap
	[ "$(metric queue_corrupt_events_total)" = 0 ] || fail "the queue is damaged"
	ok "nothing lost: events 1 to $(last) without a gap, of which 1 to $(word queued) were there before the cut; $(numbers | sort | uniq -d | wc -l) came twice"
	link_up
	an_event scan "traffic after the power cut"
}

clock() {
	systemctl stop picket # systemd sets a clock of 1970 to the day it was built on
	date -u -s '1970-01-01 00:20' >/dev/null
	systemctl start picket || fail "the unit does not start in 1970"
	pid=$(unit MainPID)
	an_event scan "clock at 1970" '"@timestamp":"1970-01-01T00:2.*"clock":"unsynchronised"'
	date -u -s '2030-01-01 12:00' >/dev/null
	an_event gtp-u "clock stepped to 2030" '"@timestamp":"2030-01-01T12:0'
	! fresh '"@timestamp":"2030' | grep '"clock":"unsynchronised"' || fail "events of 2030 say unsynchronised"
	[ "$(unit MainPID)" = "$pid" ] && [ "$(unit NRestarts)" = 0 ] || fail "it restarted when the clock was stepped"
	no_gap
}

small() {
	within 120 "not active in $(word memory) MB" active
	ok "$(awk '/^MemTotal/ { printf "%d", $2 / 1024 }' /proc/meminfo) MiB of memory besides the kernel: $(ready); $(memory)"
	broker
	link_up
	an_event scan "in $(word memory) MB"
	! journalctl -k -b -o cat | grep -i 'out of memory' || fail "the kernel ran out of memory"
	ok "after it: $(memory)of $(awk '/^MemAvailable/ { printf "%d", $2 / 1024 }' /proc/meminfo) MiB available"
	no_gap
}

link() {
	pid=$(unit MainPID)
	ip link del lan0
	sleep 5
	active || fail "it ends with its interface"
	ip link add lan0 type veth peer name peer0
	ip link set lan0 up
	link_up
	sleep 5
	an_event gtp-u "interface that went away and came back"
	[ "$(unit MainPID)" = "$pid" ] || fail "it restarted when its interface went away"
	systemctl stop picket
	ip link del lan0
	systemctl start picket # fails where its only interface is not there, and systemd tries again
	sleep 12
	began=$(uptime)
	ip link add lan0 type veth peer name peer0
	ip link set lan0 up
	within 20 "not active after its interface came" active
	ok "its only interface came after its start: active $(since "$began") s later, $(unit NRestarts) restarts"
	link_up
	sleep 5
	an_event scan "interface that came after its start"
	no_gap
}

service() {
	within 90 "not active" active
	broker
	link_up
	pid=$(unit MainPID)
	began=$(uptime)
	kill -STOP "$pid"
	within 120 "the watchdog does not restart what hangs" restarted
	within 60 "not active after the watchdog" active
	ok "watchdog: restarted $(since "$began") s after SIGSTOP"
	an_event scan "after the watchdog"

	cp /etc/picket/picket.toml before.toml
	for deb in old new; do
		pid=$(unit MainPID)
		dpkg -i $deb.deb </dev/null >dpkg.log 2>&1 || fail "dpkg -i $deb.deb: $(tail -n 8 dpkg.log)"
		within 60 "not active with the $deb package" active
		[ "$(unit MainPID)" != "$pid" ] || fail "the $deb package did not restart the service"
		cmp -s before.toml /etc/picket/picket.toml || fail "the $deb package changed the config"
		ok "$deb package, $(dpkg-query -W -f '${Version}' picket): restarted, config as it was"
	done
	an_event scan "after the upgrade"
	no_gap

	apt-get remove -y -q picket </dev/null >apt.log 2>&1 || fail "apt-get remove: $(tail -n 5 apt.log)"
	[ -z "$(pidof picket)" ] || fail "removed, it runs"
	[ -e /var/lib/private/picket/queue ] && [ -e /etc/picket/picket.toml ] || fail "the removal took queue or config"
	[ ! -e /etc/systemd/system/multi-user.target.wants/picket.service ] || fail "removed, it is enabled"
	ok "removal: ended, queue and config are there"
	dpkg --purge picket >dpkg.log 2>&1 || fail "dpkg --purge: $(tail -n 5 dpkg.log)"
	left=$(find / -xdev -name '*picket*' ! -path '/proc/*' ! -path '/var/vm/*')
	[ -z "$left" ] || fail "purged, it leaves $left"
	ok "purge: nothing left"
}

for stage in $(word stages | tr , ' '); do "$stage"; done
end
