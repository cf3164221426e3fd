#!/usr/bin/env python3
"""Compare the rows of `picket extract --row host` with a slow, obvious reference.

    python3 -m venv /tmp/hv && /tmp/hv/bin/pip install dpkt==1.9.8
    make build && /tmp/hv/bin/python internal/checks/hosts_check.py [CAPTURE...]

The reference is written from the descriptions in docs/features.md. It turns a
capture into a list of deeds (time, host, column, value), keeps all of them, and
sums them for each host and window. Without arguments: 30 captures of
$PICKET_DATA (shared/data beside the repository). docs/checks.md has the figures.
"""
import bisect, collections, csv, glob, io, ipaddress, os, re, socket, subprocess, sys
from datetime import datetime

try:
    import dpkt
except ImportError:
    sys.exit("skipped: no dpkt (pip install dpkt)")

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
PICKET = os.environ.get("PICKET", os.path.join(ROOT, "build", "picket"))
DATA = os.environ.get("PICKET_DATA", os.path.join(ROOT, "..", "shared", "data"))
S = 1_000_000  # microseconds in a second
WARM = 5 * S  # after the capture's begin, what is missing may have been before it
EXACT, MOST = 32, 16  # values up to which columns are exact
ERROR = 4 * .092
FIN, SYN, RST, ACK = 1, 2, 4, 16
HOME = [ipaddress.ip_network(n) for n in (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8",
    "fc00::/7", "fe80::/10", "::1/128")]
HTTP_PORTS = {80, 81, 3128, 5000, 7547, 8000, 8001, 8008, 8080, 8081, 8088, 8090, 8180, 8888, 9000, 9080, 9090}
MQTT_PORTS = {1883, 1884}
SEGMENT = "segment"


def mac(b):
    return ":".join("%02x" % c for c in b)


class Address(str):
    """An address as text, with what depends on it worked out once."""
    known = {}

    @classmethod
    def of(cls, packed):
        if packed not in cls.known:
            ip = ipaddress.ip_address(packed)
            a = cls.known[packed] = cls(str(ip))
            a.inside = any(ip.version == n.version and ip in n for n in HOME)
            a.unspecified = ip.is_unspecified
            # Masks are not known: of private networks, 255 in the last place is taken for a broadcast.
            a.group = ip.is_multicast or str(ip) == "255.255.255.255" or (
                ip.version == 4 and packed[3] == 255 and any(ip in n for n in HOME[:3] + HOME[4:5]))
            a.net = a if ip.version == 4 or a.inside else str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
        return cls.known[packed]


class Packet:
    """src and dst of the innermost IP packet, with what lies in it."""
    arp = ip = None


def packets(path, note):
    """Yields the packets of a capture; note counts what the reference does not read."""
    with open(path, "rb") as f:
        reader = dpkt.pcap.UniversalReader(f)
        link = reader.datalink()
        now = 0
        it = iter(reader)
        while True:
            try:
                ts, frame = next(it)
            except StopIteration:
                return
            except (dpkt.UnpackError, ValueError) as e:
                note["file cut"] += 1
                return
            time = round(ts * S)
            if time < now - 60 * S:
                raise ValueError("the clock runs back by more than a minute")
            now = max(now, time)
            p = Packet()
            p.time, p.src_mac = now, None
            try:
                if not read_link(p, link, frame, note):
                    continue
            except (dpkt.UnpackError, IndexError, ValueError, AttributeError, TypeError):
                note["not decoded"] += 1
                continue
            yield p


def read_link(p, link, frame, note):
    if link == 1:
        p.src_mac = mac(frame[6:12])
        kind, at = int.from_bytes(frame[12:14], "big"), 14
        while kind in (0x8100, 0x88a8):
            kind, at = int.from_bytes(frame[at + 2:at + 4], "big"), at + 4
    elif link == 113:
        kind, at = int.from_bytes(frame[14:16], "big"), 16
        if frame[2:6] == b"\0\1\0\6":
            p.src_mac = mac(frame[6:12])
    elif link in (12, 14, 101, 228, 229):
        kind, at = {4: 0x800, 6: 0x86dd}.get(frame[0] >> 4, 0), 0
    else:
        raise ValueError("link type %d" % link)
    if p.src_mac == "00:00:00:00:00:00":
        p.src_mac = None
    b = frame[at:]
    if kind == 0x806:
        a = dpkt.arp.ARP(b)
        if (a.hrd, a.pro, a.hln, a.pln) != (1, 0x800, 6, 4):
            return False
        p.arp = a
        return True
    if kind == 0x800:
        return read_ip4(p, b, note)
    if kind == 0x86dd:
        return read_ip6(p, b, note)
    return False


def read_ip4(p, b, note):
    size = (b[0] & 15) * 4
    total = int.from_bytes(b[2:4], "big") or len(b)
    p.ip, p.ttl = 4, b[8]
    p.src, p.dst = Address.of(bytes(b[12:16])), Address.of(bytes(b[16:20]))
    if int.from_bytes(b[6:8], "big") & 0x3fff:
        note[p.src], note[p.dst] = "fragments", "fragments"
        return False
    return read_transport(p, b[9], b[size:total], total - size, note)


def read_ip6(p, b, note):
    kind, size = b[6], int.from_bytes(b[4:6], "big")
    p.ip, p.ttl = 6, b[7]
    p.src, p.dst = Address.of(bytes(b[8:24])), Address.of(bytes(b[24:40]))
    b = b[40:40 + size]
    while kind in (0, 43, 60):
        kind, n = b[0], 8 * (b[1] + 1)
        b, size = b[n:], size - n
    if kind == 44:
        note[p.src], note[p.dst] = "fragments", "fragments"
        return False
    return read_transport(p, kind, b, size, note)


def read_transport(p, kind, b, size, note):
    """size is what was on the wire, of which b was captured."""
    p.kind = kind
    if kind == 6:
        p.sport, p.dport, p.seq, p.ack = (int.from_bytes(b[i:j], "big") for i, j in ((0, 2), (2, 4), (4, 8), (8, 12)))
        head = (b[12] >> 4) * 4
        p.flags, p.data, p.size = b[13] & 0x3f, b[head:], max(size - head, 0)
    elif kind == 17:
        p.sport, p.dport = int.from_bytes(b[:2], "big"), int.from_bytes(b[2:4], "big")
        p.data, p.size = b[8:int.from_bytes(b[4:6], "big") or len(b)], int.from_bytes(b[4:6], "big") - 8
        if {p.sport, p.dport} & {2152, 4789, 6081, 8472, 4500}:
            raise Tunnel
    elif kind in (1, 58):
        p.type, p.code, p.data, p.size = b[0], b[1], b[8:], size - 8
        p.id, p.number = int.from_bytes(b[4:6], "big"), int.from_bytes(b[6:8], "big")
    elif kind in (4, 41, 47, 50, 51, 115):
        raise Tunnel
    else:
        note["protocol %d" % kind] += 1
        return True
    return True


class Tunnel(Exception):
    pass


class Names:
    """Which host an address is of: inside, its hardware address where that is on the link and no router's."""

    def __init__(self, all_packets):
        self.routers, self.owners, sends = set(), {}, collections.defaultdict(set)
        for p in all_packets:
            if p.arp is not None:
                a = Address.of(p.arp.spa)
                if a.inside and not a.unspecified:
                    self.owners.setdefault(a, mac(p.arp.sha))
            elif p.src_mac:
                if not p.src.inside and not p.src.unspecified:
                    self.routers.add(p.src_mac)
                elif p.src.inside and p.ttl in (32, 64, 128, 255) and self.owners.setdefault(p.src, p.src_mac) == p.src_mac and p.ip == 4:
                    sends[p.src_mac].add(p.src)
        self.routers |= {m for m, s in sends.items() if len(s) > 2}

    def __call__(self, a):
        """The host of an address, None for a group of them."""
        if a.group or a.unspecified:
            return None
        m = self.owners.get(a)
        return m if m and m not in self.routers else a.net


class Flow:
    def __init__(self, client, server):
        self.client, self.server = client, server  # (address, port)
        self.syn = self.answered = self.acked = self.reset = self.error = False
        self.fin, self.due, self.seen = set(), 0, {client: [], server: []}
        self.isn = None
        self.asked, self.questions, self.text = False, {}, {}

    def closed(self):
        return self.reset or len(self.fin) == 2

    def fresh(self, p):
        """The payload of a segment that was not seen before, and how much there is by now."""
        at = p.seq + (1 if p.flags & SYN else 0)
        ranges = self.seen[(p.src, p.sport)]
        if ranges and abs(at - ranges[-1][1]) > 1 << 31:
            at += (1 << 32) * (1 if at < ranges[-1][1] else -1)
        new = [at, at + p.size]
        old = sum(b - a for a, b in ranges)
        for r in sorted(ranges):
            if r[0] <= new[1] and new[0] <= r[1]:
                ranges.remove(r)
                new = [min(new[0], r[0]), max(new[1], r[1])]
        ranges.append(new)
        return sum(b - a for a, b in ranges) - old

    def payload(self, side):
        return sum(b - a for a, b in self.seen[side])


class Reference:
    def __init__(self, all_packets, names):
        self.deeds = []  # (time, host, column, value, amount): value None of a sum
        self.name, self.began = names, all_packets[0].time
        self.tcp, self.udp, self.echo, self.groups = {}, {}, {}, {}
        self.arp_asked, self.nd_asked, self.owners = {}, {}, {}
        self.unclear = set()  # hosts with UDP whose client the reference does not know
        self.backward = set()  # hosts with DNS whose answer came first
        self.midway = set()  # hosts with TCP applications whose beginning, or a part, is not in the capture
        for p in all_packets:
            self.now = p.time
            if p.arp is not None:
                self.take_arp(p)
            elif p.kind == 6:
                self.take_tcp(p)
            elif p.kind == 17:
                self.take_udp(p)
            elif p.kind in (1, 58):
                self.take_icmp(p)
        for flows, end in ((self.tcp, self.end_tcp), (self.udp, self.end_udp)):
            for f in flows.values():
                end(f, f.due)

    def add(self, host, column, n=1, time=None):
        if host is not None and n:
            self.deeds.append((self.now if time is None else time, host, column, None, n))

    def value(self, host, column, value, n=1, time=None):
        if host is not None:
            self.deeds.append((self.now if time is None else time, host, column, value, n))

    def warm(self):
        return self.now >= self.began + WARM

    # TCP

    def take_tcp(self, p):
        src, dst = (p.src, p.sport), (p.dst, p.dport)
        key = frozenset((src, dst)), p.sport == p.dport and p.src == p.dst
        f = self.tcp.get(key)
        if f and f.due <= self.now:
            self.end_tcp(f, f.due)
            f = self.tcp.pop(key) and None
        flags = p.flags & (FIN | SYN | RST | ACK)
        only_syn = flags == SYN
        if f and only_syn and (f.closed() and p.seq != f.isn or not f.syn and not f.answered):
            self.end_tcp(f, self.now)
            f = self.tcp.pop(key) and None
        is_new = f is None
        if is_new:
            f = self.tcp[key] = Flow(dst, src) if flags & (SYN | ACK) == SYN | ACK or flags & RST else Flow(src, dst)
            if only_syn:
                self.tried("tcp", f)
        if only_syn and src == f.client:
            f.syn, f.isn = True, f.isn or p.seq
        sender, receiver = self.name(p.src), self.name(p.dst)
        if flags == 0 or flags & FIN and not flags & ACK or flags & SYN and flags & (FIN | RST):
            self.add(sender, "tcp_odd_flags")
            self.value(sender, "tcp_odd_ports", p.dport)
            self.add(receiver, "in_tcp_odd_flags")
        elif self.warm() and not f.syn and flags == SYN | ACK:
            self.add(receiver, "in_tcp_syn_ack")
            self.value(receiver, "in_tcp_syn_ack_peers", p.src)
        elif self.warm() and is_new and not flags & SYN and p.size == 0:
            self.add(sender, "tcp_orphan")
            self.value(sender, "tcp_orphan_services", dst)
            self.add(receiver, "in_tcp_orphan")
        client, server = self.name(f.client[0]), self.name(f.server[0])
        if flags & RST:
            if not f.closed():
                if f.syn and src == f.server and not f.answered:
                    self.refused(f)
                elif f.syn and src == f.client and f.answered:
                    self.add(client, "tcp_aborted" if f.acked else "tcp_dropped")
                f.reset = True
        elif src == f.server and flags & ACK:
            if f.syn and not f.answered:
                self.add(client, "tcp_answered")
                self.add(server, "in_tcp_answered")
            f.answered = f.answered or f.syn or bool(flags & SYN)
        elif src == f.client and f.answered and not only_syn:
            f.acked = True
        if flags & FIN and not f.reset:
            f.fin.add(src)
        new = 0 if flags & RST else f.fresh(p)
        if new and len(p.data) > p.size - new:
            self.talk(f, p, p.data[p.size - new:])
        if f.closed():
            if flags & (FIN | RST):
                f.due = self.now + 2 * S
        elif f.acked:
            f.due = self.now + 300 * S
        elif f.syn and not f.answered and only_syn:
            f.due = self.now + 5 * S
        else:
            f.due = self.now + 120 * S

    def tried(self, t, f):
        client, server = self.name(f.client[0]), self.name(f.server[0])
        if server is None:
            return
        self.add(client, t + "_tried")
        self.value(client, t + "_ports", f.server[1])
        self.value(client, t + "_peers", f.server[0])
        self.value(client, t + "_services", f.server)
        self.value(client, t + "_most_peer", f.server[0])
        self.add(server, "in_" + t + "_tried")
        self.value(server, "in_" + t + "_ports", f.server[1])
        self.value(server, "in_" + t + "_peers", f.client[0])
        if t == "tcp":
            self.value(client, "tcp_most_service", f.server)
            self.value(server, "in_tcp_most_service", f.server)

    def refused(self, f):
        self.add(self.name(f.client[0]), "tcp_refused")
        self.value(self.name(f.client[0]), "tcp_refused_services", f.server)
        self.add(self.name(f.server[0]), "in_tcp_refused")

    def end_tcp(self, f, time):
        if not f.syn:
            return
        client, server = self.name(f.client[0]), self.name(f.server[0])
        up, down = f.payload(f.client), f.payload(f.server)
        if not f.answered and not f.reset and not f.error:
            self.add(client, "tcp_unanswered", time=time)
            self.add(server, "in_tcp_unanswered", time=time)
        elif f.acked and f.closed() and up + down == 0:
            self.add(client, "tcp_empty", time=time)
            self.value(client, "tcp_empty_services", f.server, time=time)
        elif f.acked and f.closed():
            alike = f.server, up.bit_length(), down.bit_length()
            self.value(client, "tcp_most_alike", alike, time=time)
            self.value(server, "in_tcp_most_alike", alike, time=time)

    # UDP

    def take_udp(self, p):
        src, dst = (p.src, p.sport), (p.dst, p.dport)
        if 67 in (p.sport, p.dport) or 68 in (p.sport, p.dport):
            self.take_dhcp(p)
        key = frozenset((src, dst))
        f = self.udp.get(key)
        if f and f.due <= self.now:
            self.end_udp(f, f.due)
            f = self.udp.pop(key) and None
        if not f:
            group = self.groups.get(dst)
            if group and self.now - group <= 10 * S:
                self.unclear |= {self.name(p.src), self.name(p.dst)}  # it may answer what went to a group
            if p.sport == 53:
                self.backward |= {self.name(p.src), self.name(p.dst)}
            if p.sport < min(p.dport, 32768) or p.dst.group and len(p.data) > 2 and p.data[2] & 0x80:
                self.unclear |= {self.name(p.src), self.name(p.dst)}  # the server may be first
            f = self.udp[key] = Flow(src, dst)
            self.tried("udp", f)
        f.due = self.now + 60 * S
        if p.dst.group:
            self.groups[src] = self.now
            return
        client, server = self.name(f.client[0]), self.name(f.server[0])
        if client and server:
            if src == f.server and src != f.client:
                if not f.answered:
                    self.add(client, "udp_answered")
                f.answered = True
            elif not f.answered:
                self.value(client, "udp_most_service", f.server)
                self.value(server, "in_udp_most_service", f.server)
        if f.server[1] == 53:
            self.take_dns(f, p)

    def end_udp(self, f, time):
        if not f.answered and self.name(f.server[0]) and self.name(f.client[0]):
            self.add(self.name(f.client[0]), "udp_unanswered", time=time)
            self.add(self.name(f.server[0]), "in_udp_unanswered", time=time)

    def take_dns(self, f, p):
        b = bytes(p.data)
        if len(b) < 12 or b[4:6] != b"\0\1" or b[2] & 0x78:
            return
        client, server = self.name(f.client[0]), self.name(f.server[0])
        number = b[:2]
        if b[2] & 0x80:
            if (p.src, p.sport) != f.server:
                return
            q = f.questions.get(number)
            if q is None:
                if self.warm():
                    self.add(client, "in_dns_unasked")
                return
            code = b[3] & 15
            self.add(client, "dns_nxdomain" if code == 3 else "dns_failed", n=int(code != 0))
            if q["odd"]:
                self.add(client, "dns_answer_bytes", n=len(b))
            try:
                m = dpkt.dns.DNS(b)
                found = {bytes(r.rdata) for r in m.an if r.type in (1, 28)}
            except (dpkt.UnpackError, IndexError, UnicodeDecodeError):
                return
            if found and q["addresses"] and found != q["addresses"]:
                self.add(client, "in_dns_conflicts")
                self.add(p.src_mac if p.src_mac and p.src_mac not in self.name.routers else server, "dns_conflicts")
            q["addresses"] = q["addresses"] or found
            return
        if (p.src, p.sport) != f.client:
            return
        self.add(client, "dns_queries")
        self.add(server, "in_dns_queries")
        q = f.questions[number] = {"odd": False, "addresses": None}
        labels, at = [], 12
        while at < len(b) and 0 < b[at] < 64:
            labels.append(b[at + 1:at + 1 + b[at]].lower())
            at += 1 + b[at]
        if at + 5 > len(b) or b[at]:
            return
        kind = int.from_bytes(b[at + 1:at + 3], "big")
        q["odd"] = kind in (5, 15, 10, 16, 25) or kind > 257
        self.add(client, "dns_odd_types", n=int(q["odd"]))
        self.add(client, "dns_any", n=int(kind == 255))
        below = len(b".".join(labels[:-2]))
        self.add(client, "dns_long", n=int(below > 40))
        name, parent = b".".join(labels), b".".join(labels[-2:])
        self.value(client, "dns_names", name)
        self.value(client, "NAME", (name, parent, below))

    def take_dhcp(self, p):
        b = bytes(p.data)
        if len(b) < 240 or b[0] not in (1, 2) or b[1:3] != b"\1\6" or b[236:240] != b"\x63\x82\x53\x63" or not p.src_mac:
            return
        kind, at = 0, 240
        while at + 1 < len(b) and b[at] != 255:
            if b[at] == 0:
                at += 1
                continue
            if b[at] == 53 and b[at + 1] == 1:
                kind = b[at + 2]
            at += 2 + b[at + 1]
        if b[0] == 2:
            self.add(p.src_mac, {2: "dhcp_offers", 5: "dhcp_offers", 6: "dhcp_refusals"}.get(kind, "other"))
            self.value(SEGMENT, "dhcp_servers", p.src)
            return
        client = mac(b[28:34])
        self.add(p.src_mac, {1: "dhcp_discovers", 3: "dhcp_requests", 4: "dhcp_releases", 7: "dhcp_releases"}.get(kind, "other"))
        if b[24:28] == b"\0\0\0\0":  # else the frame is a relay's
            self.add(p.src_mac, "dhcp_forged", n=int(client != p.src_mac))
            self.value(p.src_mac, "dhcp_clients", client)
        self.value(SEGMENT, "dhcp_clients", client)

    # ICMP and the link

    def take_icmp(self, p):
        six, src, dst = p.kind == 58, self.name(p.src), self.name(p.dst)
        request, reply, redirect = (128, 129, 137) if six else (8, 0, 5)
        errors = set(range(128)) if six else {3, 4, 11, 12}
        if six and p.type in (133, 134, 135, 136):
            self.take_nd(p)
        elif p.type == request:
            e = self.echo.setdefault((p.src, p.dst, p.id), {})
            if e.get("last", self.now) + 10 * S <= self.now:
                e.clear()
            e["last"] = self.now
            e[p.number] = bytes(p.data[16:]), p.size
            self.add(src, "echo_requests")
            self.add(dst, "in_echo_requests")
            self.add(src, "echo_large", n=int(p.size > 128))
            self.value(src, "echo_targets", p.dst)
            self.value(src, "echo_most_target", p.dst)
            self.value(src, "echo_sizes", p.size)
            if len(p.data) > 16:
                self.value(src, "echo_contents", bytes(p.data[16:]))
        elif p.type == reply:
            e = self.echo.get((p.dst, p.src, p.id))
            if e and e["last"] + 10 * S > self.now:
                e["last"] = self.now
                self.add(dst, "echo_replied")
                if p.number in e and e[p.number] != (bytes(p.data[16:]), p.size):
                    self.add(src, "echo_differing")
                    self.add(dst, "in_echo_differing")
            else:
                self.add(dst, "in_echo_unasked")
        elif p.type == redirect:
            self.add(src, "icmp_redirects")
        elif p.type in errors:
            if p.type == (1 if six else 3) and (six or p.code != 4):
                self.unreachable(p, src)
        elif not (six and (p.type in (130, 131, 132, 143))):
            self.add(src, "icmp_odd")
            self.value(src, "icmp_types", p.type)
            self.add(dst, "in_icmp_odd")
            self.value(dst, "in_icmp_types", p.type)

    def unreachable(self, p, src):
        q = Packet()
        try:
            ok = (read_ip6 if p.kind == 58 else read_ip4)(q, quoted(p), collections.Counter())
        except (Tunnel, IndexError):
            ok = False
        f = None
        if ok and q.kind in (6, 17):
            a, b = (q.src, q.sport), (q.dst, q.dport)
            f = self.tcp.get((frozenset((a, b)), False)) if q.kind == 6 else self.udp.get(frozenset((a, b)))
            if f and f.due <= self.now:
                f = None
            if f and f.client != a:
                return  # about an answer
        elif ok and q.kind in (1, 58) and q.type in (8, 128):
            e = self.echo.get((q.src, q.dst, q.id))
            if e and e["last"] + 10 * S > self.now:
                self.add(self.name(q.src), "in_icmp_unreachable")
                self.value(self.name(q.src), "in_unreachable_ports", 0)
        self.add(src, "icmp_unreachable")
        if f:
            client = self.name(f.client[0])
            self.add(client, "in_icmp_unreachable")
            self.value(client, "in_unreachable_ports", q.dport)
            if q.kind == 6 and f.syn and not f.answered and not f.error:
                self.refused(f)
            f.error = True

    def claim(self, a, m, host, column):
        before = self.owners.get(a)
        if before and before[0] != m and self.now - before[1] < 3600 * S:
            self.add(host, column)
            self.add(before[0], "in_address_taken")
        self.owners[a] = m, self.now

    def take_arp(self, p):
        a = p.arp
        sender, target, m = Address.of(a.spa), Address.of(a.tpa), mac(a.sha)
        host = p.src_mac or m
        self.value(SEGMENT, "link_senders", host)
        self.add(host, "arp_forged", n=int(host != m))
        if sender == target:
            self.add(host, "arp_gratuitous")
        elif a.op == 1:
            self.add(host, "arp_requests")
            self.value(host, "arp_targets", target)
            self.arp_asked[target] = self.now
        elif a.op == 2:
            asked = self.arp_asked.get(sender)
            if self.warm() and (asked is None or self.now - asked > 5 * S):
                self.add(host, "arp_unasked")
            self.value(host, "arp_reply_targets", target)
        if not sender.unspecified:
            self.value(host, "arp_claims", sender)
            self.claim(sender, m, host, "arp_taken")

    def take_nd(self, p):
        host = p.src_mac
        if not host:
            return
        target = Address.of(bytes(p.data[:16])) if len(p.data) >= 16 else None
        if p.type == 134:
            self.add(host, "router_advertisements")
            self.value(SEGMENT, "link_routers", host)
        elif p.type == 135 and target is not None:
            self.value(host, "nd_targets", target)
            self.nd_asked[target] = self.now
        elif p.type == 136:
            self.add(host, "nd_advertisements")
            if target is None:
                return
            self.value(host, "nd_claims", target)
            asked = self.nd_asked.get(target)
            if not p.dst.group and self.warm() and (asked is None or self.now - asked > 5 * S):
                self.add(host, "nd_unasked")
            self.claim(target, host, host, "nd_taken")

    # Applications

    def talk(self, f, p, data):
        ports = {f.server[1], f.client[1]}
        if not f.syn and ports & (HTTP_PORTS | MQTT_PORTS):
            self.midway |= {self.name(f.client[0]), self.name(f.server[0])}
        elif f.server[1] in HTTP_PORTS:
            self.take_http(f, p, bytes(data))
        elif f.server[1] in MQTT_PORTS:
            self.take_mqtt(f, p, bytes(data))

    def take_http(self, f, p, b):
        client, server = self.name(f.client[0]), self.name(f.server[0])
        if (p.src, p.sport) == f.server:
            if b.startswith(b"HTTP/1."):
                f.text["open"] = False  # whatever it answers, it waits no longer
            m = re.match(rb"HTTP/1\.. (4\d\d)", b)
            if m:
                refused = m[1] in (b"401", b"403", b"407")
                self.add(client, "http_errors")
                self.add(client, "http_unauthorised", n=int(refused))
                self.add(server, "in_http_unauthorised", n=int(refused))
            return
        m = re.match(rb"([A-Z]{3,16}) ((?:/|\*|http)[^ ?\r\n]*)", b[:512])
        if m and not f.text.get("open"):
            self.add(client, "http_requests")
            self.add(server, "in_http_requests")
            target = f.server, m[2]
            self.value(client, "http_targets", target)
            self.value(client, "http_most_target", target)
            self.value(client, "http_most_service", f.server)
            f.text["header"] = b""
            f.text["open"] = True
        if f.text.get("open"):
            f.text["header"] += b
            f.text["open"] = b"\n\n" not in f.text["header"].replace(b"\r", b"")

    def take_mqtt(self, f, p, b):
        client, server = self.name(f.client[0]), self.name(f.server[0])
        up = (p.src, p.sport) == f.client
        t = f.text.setdefault(up, {"next": None, "rest": b"", "lost": False})
        begin = p.seq + p.size - len(b)
        if t["lost"] or t["next"] is not None and begin != t["next"]:
            t["lost"] = True  # a gap, or segments out of order
            self.midway |= {client, server}
            return
        t["next"] = begin + len(b)
        whole = t["rest"] == b""  # what follows begins in this segment
        t["rest"] += b
        while True:
            r = t["rest"]
            n = shift = 0
            size = None
            for i in range(1, min(5, len(r))):
                n |= (r[i] & 127) << shift
                shift += 7
                if r[i] < 128:
                    size = i + 1
                    break
            if size is None or len(r) < size + n:
                return
            body, t["rest"] = r[size:size + n], r[size + n:]
            whole, first = True, whole
            kind = r[0] >> 4
            if not up:
                if kind == 2 and n >= 2 and body[1]:
                    self.add(client, "mqtt_refused")
                continue
            if kind == 1:
                self.add(client, "mqtt_connects")
                self.add(server, "in_mqtt_connects")
                self.value(client, "mqtt_most_connects", f.server)
                at = 2 + int.from_bytes(body[:2], "big")
                version, at = body[at], at + 4
                if version == 5:
                    at += 1 + body[at]
                if first:
                    self.value(client, "mqtt_clients", body[at + 2:at + 2 + int.from_bytes(body[at:at + 2], "big")])
            elif kind == 3:
                self.add(client, "mqtt_publishes")
                self.add(server, "in_mqtt_publishes")
                self.add(client, "mqtt_publish_bytes", n=n)
                self.add(client, "mqtt_large", n=int(n > 64000))
                self.value(client, "mqtt_most_publishes", id(f))
                self.value(client, "mqtt_most_bytes", id(f), n=n)
                self.value(client, "mqtt_topics", body[2:2 + int.from_bytes(body[:2], "big")])
            elif kind == 8:
                self.add(client, "mqtt_subscribes")
                self.add(client, "mqtt_wildcards", n=int(any(w in body for w in (b"\0\1#", b"\0\6$SYS/#"))))


def quoted(p):
    return bytes(p.data)


# Columns that are computed of others.
DERIVED = {
    "tcp_half_open": ("tcp_tried", "tcp_answered", "tcp_refused"),
    "in_tcp_half_open": ("in_tcp_tried", "in_tcp_answered", "in_tcp_refused"),
    "echo_unanswered": ("echo_requests", "echo_replied"),
}
LEFT_OUT = {  # what the reference does not compute
    "in_udp_unasked", "in_udp_unasked_bytes", "in_udp_unasked_peers", "mqtt_malformed", "in_mqtt_malformed",
    "http_incomplete", "in_http_incomplete", "login_failures", "in_login_failures", "login_most_service", "login_services",
    "in_login_peers",
}


class Sums:
    """The deeds of a host, by column, in the order of time."""

    def __init__(self, deeds):
        self.by = collections.defaultdict(list)
        for d in sorted(deeds, key=lambda d: d[0]):
            self.by[d[2]].append(d)
        last = {}
        for time, _, _, (name, parent, below), _ in self.by.pop("NAME", ()):
            # A name counts anew when it was not asked for in this half of 600 s and the one before.
            half = time // (300 * S)
            if half - last.get(name, -9) > 1:
                self.by["dns_name_bytes"].append((time, None, None, None, below))
                self.by["dns_most_bytes"].append((time, None, None, parent, below))
                self.by["dns_most_names"].append((time, None, None, parent, 1))
            last[name] = half

    def span(self, column, window, long):
        end = (window + 1) * 10 * S
        begin = (end - 10 * S) // (300 * S) * 300 * S - 300 * S if long else end - 10 * S
        return [d for d in self.by[column] if begin <= d[0] < end]

    def of(self, column, window, long, kind):
        """The value of a column, and whether Picket has to have it exactly."""
        if column in DERIVED:
            first, *rest = (self.of(c, window, long, "sum")[0] for c in DERIVED[column])
            return max(0, first - sum(rest)), True
        deeds = self.span(column, window, long)
        if kind == "sum":
            return sum(d[4] for d in deeds), column != "dns_name_bytes" or self.few("dns_names", window)
        n = collections.Counter()
        for d in deeds:
            n[d[3]] += d[4]
        if kind == "distinct":
            return len(n), self.few(column, window)
        return max(n.values(), default=0), self.few(column, window, MOST) and ("dns" not in column or self.few("dns_names", window))

    def few(self, column, window, limit=EXACT):
        """Whether the column had so few values up to now that Picket has them all."""
        return len({d[3] for d in self.by[column] if d[0] < (window + 1) * 10 * S}) <= limit


columns_group = {}


def kinds():
    """How each column counts, by docs/features.md."""
    out, group = {}, ""
    for line in open(os.path.join(ROOT, "docs", "features.md")):
        group = line[8:].split(",")[0] if line.startswith("## host-") else group
        m = re.match(r"\| `(\w+)_10s` \| \w+ \| (.*) \|  \|$", line)
        if m and m[1] not in LEFT_OUT:
            columns_group[m[1]] = group
            out[m[1]] = "distinct" if "HyperLogLog" in m[2] else "most" if "that have the most)" in m[2] else "sum"
    return out


def identify(row):
    h = row["host"]
    if h == SEGMENT or re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", h):
        return h
    if h == "rest":
        return h
    return Address.of(ipaddress.ip_address(row["source"]).packed).net


class Tally:
    def __init__(self):
        self.n, self.ok, self.shown = collections.Counter(), collections.Counter(), collections.Counter()
        self.conv = collections.Counter()

    def add(self, where, column, ours, theirs, kind, exact):
        group = column.removesuffix("_10s").removesuffix("_600s")
        self.n[group] += 1
        if ours == theirs or not exact and (kind != "distinct" or abs(ours - theirs) <= max(1, ERROR * theirs)):
            self.ok[group] += 1
            return
        self.shown[group] += 1
        if self.shown[group] <= int(os.environ.get("SHOW", "4")):
            print(f"{where} {column}: {ours:g}, reference {theirs:g}", file=sys.stderr)


def compare(path, columns, tally):
    note = collections.defaultdict(int)
    try:
        all_packets = list(packets(path, note))
    except (Tunnel, ValueError, dpkt.UnpackError) as e:
        tally.conv["captures left out: " + (str(e) or "tunnels")] += 1
        return
    if not all_packets:
        return
    names = Names(all_packets)
    ref = Reference(all_packets, names)
    by = collections.defaultdict(list)
    for d in ref.deeds:
        by[d[1]].append(d)
    text = subprocess.run([PICKET, "extract", "--row", "host", "-q", "-o", "-", path], check=True, capture_output=True, text=True).stdout
    rows, called = {}, collections.defaultdict(set)
    for r in csv.DictReader(io.StringIO(text)):
        us = int(datetime.fromisoformat(r["start"][:19] + "+00:00").timestamp()) * S
        host = identify(r)
        rows[host, us // (10 * S)] = r
        if r["source"]:
            a = Address.of(ipaddress.ip_address(r["source"]).packed)
            called[a].add(host)
    other = set()  # hosts that Picket names otherwise, in all of the capture or in a part
    for a, hosts in called.items():
        want = names(a)
        if names.owners.get(a) in names.routers and hosts & names.routers:
            other.add(a)  # until it was known for a router's, it was the hardware address's
        elif want is not None and a.inside and hosts - {want}:
            other |= hosts | {want}
            if os.environ.get("SHOW"):
                print(f"{os.path.basename(path)} {a}: {hosts}, reference {want}", file=sys.stderr)
    fragments = {names(a) for a, v in note.items() if v == "fragments"}
    crowd = any(host == "rest" for host, _ in rows)  # more hosts than Picket remembers: it forgets outside ones

    def clear(host, column):
        if host in names.routers and columns_group[column] not in ("link", "dhcp"):
            return False  # Picket calls a router by its hardware address until it is known for one
        if columns_group[column] == "dns":
            return host not in ref.backward
        if columns_group[column] == "udp" or "unreachable" in column:
            return host not in ref.unclear
        return host not in ref.midway or columns_group[column] not in ("http", "mqtt")

    def left_out(host):
        if host == SEGMENT:
            return ""
        if host == "rest":
            return "hosts forgotten"
        return ("hosts named otherwise" if host in other else "fragments" if host in fragments else
                "hosts forgotten" if crowd and not (":" in host and len(host) == 17 or Address.of(ipaddress.ip_address(host.split('/')[0]).packed).inside) else "")

    tally.conv["captures"] += 1
    tally.conv["packets"] += len(all_packets)
    sums = {h: Sums(d) for h, d in by.items()}
    for (host, window), r in rows.items():
        if why := left_out(host):
            tally.conv["rows left out: " + why] += 1
            continue
        tally.conv["rows"] += 1
        s = sums.get(host) or Sums([])
        for c, kind in columns.items():
            if not clear(host, c):
                tally.conv["columns left out: no clear client"] += 1
                continue
            for long in (False, True):
                name = c + ("_600s" if long else "_10s")
                v, exact = s.of(c, window, long, kind)
                ours = float(r[name])
                if ours or v:
                    tally.add(f"{os.path.basename(path)} {host} {r['start'][11:19]}", name, ours, v, kind, exact)
    for host, s in sums.items():
        if left_out(host):
            continue
        for c in columns:
            if not clear(host, c):
                continue
            for w in {d[0] // (10 * S) for d in s.by.get(c, ())}:
                if (host, w) not in rows:
                    tally.add(f"{os.path.basename(path)} {host} window {w}: no row", c + "_10s", 0, 1, "sum", True)


def captures():
    out = sorted(glob.glob(os.path.join(DATA, "captures", "lab", "*.pcap")))
    for folder in sorted(glob.glob(os.path.join(DATA, "captures", "train", "*"))):
        if re.search("gtp|lte|5g|doh|quic|diameter", folder):
            continue
        files = sorted(f for f in glob.glob(os.path.join(folder, "*cap*")) if os.path.getsize(f) < 1.2e6)
        if files:
            parts = (3, 6, 10, 14, 17) if len(files) > 50 else (10,)
            out += [files[i * len(files) // 20] for i in parts]
    if not out:
        text = "no captures in " + DATA
        if os.environ.get("CI_REQUIRE_DATA") == "1":
            sys.exit(text)
        sys.exit("skipped: " + text)
    return out


def main():
    tally, columns = Tally(), kinds()
    for path in sys.argv[1:] or captures():
        compare(path, columns, tally)
    print(f"dpkt {dpkt.__version__}")
    for k, v in sorted(tally.conv.items()):
        print(f"  {v:8d} {k}")
    print(f"{'column':24s} {'alike':>8s} {'of':>8s}")
    for k in columns:
        if tally.n[k]:
            print(f"{k:24s} {tally.ok[k]:8d} {tally.n[k]:8d}")
    alike, of = sum(tally.ok.values()), sum(tally.n.values())
    print(f"{'all':24s} {alike:8d} {of:8d}")
    if alike < of:
        sys.exit(1)


if __name__ == "__main__":
    main()
