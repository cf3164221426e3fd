#!/bin/sh
# Cuts the captures of this folder from A-lan.pcap, a run of the project's own lab:
# IoT devices behind a gateway, attackers inside and outside, in network
# namespaces. Usage: sh cut.sh A-lan.pcap (needs editcap and tcpdump)
set -eu
lan=$1
here=$(cd "$(dirname "$0")" && pwd)
part=$(mktemp)
trap 'rm -f "$part"' EXIT
# name, first and last second since 1795223000, filter
while read -r name from to filter; do
	editcap -F pcap -A "1795223$from" -B "1795223$to" "$lan" "$part"
	tcpdump -n -r "$part" -w - $filter 2>/dev/null | gzip -9n >"$here/$name.pcap.gz"
done <<LIST
benign 196.0 220.0
scan 246.0 256.0
flood 333.0 335.0
brute 455.0 460.5
udp-scan 299.0 309.0
gtp-u 754.0 756.0
sip-flood 685.0 688.0
LIST
