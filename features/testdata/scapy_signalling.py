#!/usr/bin/env python3
"""Builds signalling.pcap and signalling.txt with scapy, as an independent check of
features/signalling*.go: python3 -m venv v && v/bin/pip install scapy && v/bin/python scapy_signalling.py

A line of signalling.txt is what the packet is: protocol, core function, counted
messages (gtp, pfcp, sip, diameter requests; 0 or 1 of the kinds), TEID, comment.
Where a message has a relative without scapy's layers (GTP', SIP, NGAP, M3UA), its
octets are written here.
"""
import logging
import struct
from pathlib import Path

logging.getLogger("scapy").setLevel(logging.ERROR)
import scapy
from scapy.all import IP, IPv6, TCP, UDP, Ether, Raw, wrpcap
from scapy.contrib import gtp, gtp_v2, http2, pfcp
from scapy.contrib.diameter import AVP, DiamAns, DiamReq
from scapy.layers.sctp import SCTP, SCTPChunkData, SCTPChunkHeartbeatReq, SCTPChunkSACK

here = Path(__file__).parent
packets, lines = [], []


def add(layer, payload, protocol, core=None, n=0, teid=0, note="", ip=None):
    core = {"ngap": 10, "pfcp": 11, "gtp-u": 12}.get(protocol, 99) if core is None else core
    p = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / (ip or IP(src="10.1.0.1", dst="10.2.0.2")) / layer / payload
    p.time = 1_700_000_000 + len(packets) / 100
    packets.append(Ether(bytes(p)))
    packets[-1].time = p.time
    lines.append(f"{protocol} {core} {n} {teid} {note}")


def own():
    """A port of its own for each packet: other tools follow connections."""
    return 40000 + len(packets)


def udp(port, sport=None):
    return UDP(sport=sport or own(), dport=port)


def tcp(port, sport=None):
    return TCP(sport=sport or own(), dport=port, flags="PA", seq=1)


def sctp(port, *chunks):
    p = SCTP(sport=own(), dport=port, tag=1)
    for c in chunks:
        p = p / c
    return p


def tsn(last=[0]):
    last[0] += 1
    return last[0]


def data(ppid, octets, b=1, e=1):
    return SCTPChunkData(proto_id=ppid, data=octets, beginning=b, ending=e, tsn=tsn(), stream_id=0, stream_seq=0)


# GTP-U: signalling only, and a G-PDU that carries no IP packet (the decoder peels the others).
v6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
add(udp(2152, 2152), gtp.GTPHeader(gtp_type=1, S=1, seq=7, teid=0) / gtp.GTPEchoRequest(), "gtp-u", n=1, note="echo request")
add(udp(own(), 2152), gtp.GTPHeader(gtp_type=2, S=1, seq=7, teid=0) / gtp.GTPEchoResponse(), "gtp-u", n=1, note="echo response, from the port")
add(udp(2152), gtp.GTPHeader(gtp_type=26, S=1, seq=1, teid=0) / gtp.GTPErrorIndication(), "gtp-u", n=1, note="error indication")
add(udp(2152), gtp.GTPHeader(gtp_type=254, teid=0x1234), "gtp-u", n=1, teid=0x1234, note="end marker")
add(udp(2152), gtp.GTP_U_Header(gtp_type=255, teid=0xabcd, length=6) / Raw(b"\0\1\2\3\4\5"), "gtp-u", teid=0xabcd, note="G-PDU without IP")
add(udp(2152), gtp.GTPHeader(gtp_type=1, S=1, teid=0) / gtp.GTPEchoRequest(), "gtp-u", n=1, note="IPv6", ip=v6)
# GTP-C version 1
add(udp(2123, 2123), gtp.GTPHeader(gtp_type=16, S=1, seq=1, teid=0) / gtp.GTPCreatePDPContextRequest(), "gtp-c", n=1, note="v1 create PDP context")
add(udp(2123, 2123), gtp.GTPHeader(gtp_type=17, S=1, seq=1, teid=99) / gtp.GTPCreatePDPContextResponse(), "gtp-c", n=1, teid=99, note="v1 create PDP context response")
add(udp(2123), gtp.GTPHeader(gtp_type=20, S=1, seq=2, teid=77) / gtp.GTPDeletePDPContextRequest(), "gtp-c", n=1, teid=77, note="v1 delete PDP context")
# GTP-C version 2
V2 = gtp_v2.GTPHeader
add(udp(2123), V2(gtp_type=1, T=0, seq=1) / gtp_v2.GTPV2EchoRequest(), "gtp-c", n=1, note="v2 echo")
add(udp(2123), V2(gtp_type=32, T=1, teid=0, seq=2) / gtp_v2.GTPV2CreateSessionRequest(), "gtp-c", n=1, note="v2 create session")
add(udp(2123), V2(gtp_type=33, T=1, teid=5, seq=2) / gtp_v2.GTPV2CreateSessionResponse(), "gtp-c", n=1, teid=5, note="v2 create session response")
add(udp(2123), V2(gtp_type=34, T=1, teid=6, seq=3) / gtp_v2.GTPV2ModifyBearerRequest(), "gtp-c", n=1, teid=6, note="v2 modify bearer")
first = bytearray(bytes(V2(gtp_type=33, T=1, teid=5, seq=2) / gtp_v2.GTPV2CreateSessionResponse()))
first[0] |= 0x10
add(udp(2123), Raw(bytes(first) + bytes(V2(gtp_type=95, T=1, teid=5, seq=3) / gtp_v2.GTPV2CreateBearerRequest())), "gtp-c", n=2, teid=5, note="v2 piggybacked")
# GTP'
add(udp(3386), Raw(struct.pack(">BBHH", 0x4f, 1, 0, 9)), "gtp-prime", n=1, note="echo")
add(udp(3386), Raw(struct.pack(">BBHH", 0x4f, 240, 4, 9) + b"\x7e\1\0\0"), "gtp-prime", n=1, note="data record transfer")
# PFCP
P = pfcp.PFCP
add(udp(8805, 8805), P(S=0, message_type=1, seq=1) / pfcp.PFCPHeartbeatRequest(), "pfcp", note="heartbeat")
add(udp(8805, 8805), P(S=0, message_type=5, seq=2) / pfcp.PFCPAssociationSetupRequest(), "pfcp", note="association setup")
add(udp(8805, 8805), P(S=1, seid=0, message_type=50, seq=3) / pfcp.PFCPSessionEstablishmentRequest(), "pfcp", n=1, note="session establishment")
add(udp(8805, 8805), P(S=1, seid=1, message_type=51, seq=3) / pfcp.PFCPSessionEstablishmentResponse(), "pfcp", note="its response")
add(udp(8805), P(S=1, seid=1, message_type=52, seq=4) / pfcp.PFCPSessionModificationRequest(), "pfcp", n=1, note="session modification")
add(udp(8805), P(S=1, seid=1, message_type=54, seq=5) / pfcp.PFCPSessionDeletionRequest(), "pfcp", n=1, note="session deletion")
add(udp(8805), P(S=1, seid=1, message_type=56, seq=6) / pfcp.PFCPSessionReportRequest(), "pfcp", note="session report")
# SIP
for method in "INVITE ACK BYE CANCEL OPTIONS REGISTER PRACK SUBSCRIBE NOTIFY PUBLISH INFO REFER MESSAGE UPDATE".split():
    add(udp(5060, 5060), Raw(f"{method} sip:bob@example.org SIP/2.0\r\nCSeq: 1 {method}\r\n\r\n".encode()), "sip", n=1, note=method)
add(udp(own(), 5060), Raw(b"SIP/2.0 180 Ringing\r\nCSeq: 1 INVITE\r\n\r\n"), "sip", note="response")
add(udp(15060), Raw(b"REGISTER sip:example.org SIP/2.0\r\n\r\n"), "sip", n=1, note="another port")
add(tcp(5060), Raw(b"INVITE tel:+4930123 SIP/2.0\r\n\r\n"), "sip", n=1, note="TCP")
add(tcp(5060), Raw(b"\r\n\r\nSIP/2.0 200 OK\r\n\r\n"), "sip", note="TCP, after a keep-alive")
add(udp(5060), Raw(b"\r\n\r\n"), "none", note="keep-alive")
add(tcp(554), Raw(b"OPTIONS rtsp://example.org/a RTSP/1.0\r\nCSeq: 1\r\n\r\n"), "none", note="RTSP")
# Diameter
session, host = AVP(263, val="a;1;2"), AVP(264, val="mme.example.org")
air = DiamReq("Capabilities-Exchange", drAppId=0, avpList=[host])
ccr = DiamReq("Credit-Control", drAppId=4, avpList=[session, host])
cca = DiamAns("Credit-Control", drAppId=4, avpList=[session, AVP(268, val=2001)])
add(tcp(3868), air, "diameter", n=1, note="capabilities exchange")
add(tcp(3868), ccr, "diameter", n=1, note="credit control")
add(tcp(own(), 3868), cca, "diameter", note="its answer")
add(tcp(3868), Raw(bytes(ccr) + bytes(cca) + bytes(ccr)), "diameter", n=2, note="three in a segment")
add(tcp(3871), ccr, "diameter", n=1, note="another port")
add(sctp(3868, data(46, bytes(air))), b"", "diameter", n=1, note="SCTP")
add(sctp(3868, data(0, bytes(ccr)), data(0, bytes(ccr))), b"", "diameter", n=2, note="SCTP, two chunks, no PPID")
add(sctp(17000, data(46, bytes(ccr))), b"", "diameter", n=1, note="SCTP, another port")
# NGAP and S1AP: NG and S1 setup request, as APER begins them
ngsetup = bytes.fromhex("00150033000004001b00080002f83910000102005240090300667265653567630066001000000000010002f839000010080102030015400100")
s1setup = bytes.fromhex("0011002d000004003b00080000f110000019b0003c400a0380737273656e62303100400007000000c000f1100089400100")
add(sctp(38412, data(60, ngsetup)), b"", "ngap", note="NG setup")
add(sctp(38412, SCTPChunkSACK(), data(60, ngsetup)), b"", "ngap", note="behind a SACK")
add(sctp(38412, data(0, ngsetup)), b"", "ngap", note="no PPID")
add(sctp(9999, data(60, ngsetup)), b"", "ngap", note="another port")
add(sctp(36412, data(18, s1setup)), b"", "s1ap", note="S1 setup")
add(sctp(36412, data(18, b"\xff" * 30)), b"", "s1ap", note="fuzzed message")
add(sctp(38412, SCTPChunkHeartbeatReq()), b"", "none", note="no data")
# SS7: M3UA's ASP up and payload data, SUA, M2PA
add(sctp(2905, data(3, struct.pack(">BBBBI", 1, 0, 3, 1, 8))), b"", "ss7", note="M3UA ASP up")
add(sctp(2905, data(3, struct.pack(">BBBBI", 1, 0, 1, 1, 24) + b"\x02\x10\0\x10" + b"\0" * 12)), b"", "ss7", note="M3UA data")
add(sctp(14001, data(4, struct.pack(">BBBBI", 1, 0, 3, 1, 8))), b"", "ss7", note="SUA")
add(sctp(3565, data(5, struct.pack(">BBBBI", 1, 0, 11, 2, 20) + b"\0" * 12)), b"", "ss7", note="M2PA")
# 5G service-based interface
def headers(path):
    """The frames of a request, compressed by scapy with a new table."""
    text = f":method POST\n:scheme http\n:authority ausf.example.org\n:path {path}\ncontent-type: application/json\n"
    return bytes(http2.HPackHdrTable().parse_txt_hdrs(text.encode(), stream_id=1, max_frm_sz=16384, max_hdr_lst_sz=65536))


preface = http2.H2_CLIENT_CONNECTION_PREFACE + bytes(http2.H2Frame() / http2.H2SettingsFrame())
for path, core in (("/nausf-auth/v1/ue-authentications", 13), ("/namf-comm/v1/ue-contexts", 10), ("/nsmf-pdusession/v1/sm-contexts", 11),
                   ("/nudm-sdm/v2/imsi-001010000000001/am-data", 99), ("/root/nausf-auth/v1/ue-authentications", 13)):
    add(tcp(7777), Raw(preface + headers(path)), "sbi", core, note="preface and " + path)
    add(tcp(29509), Raw(headers(path)), "sbi", core, note="HTTP/2 " + path)
    add(tcp(8000), Raw(f"POST {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()), "sbi", core, note="HTTP/1.1 " + path)
add(tcp(7777), Raw(preface), "none", note="preface alone")
add(tcp(50051), Raw(preface + headers("/grpc.health.v1.Health/Check")), "none", note="gRPC")
add(tcp(80), Raw(b"GET /index.html HTTP/1.1\r\n\r\n"), "none", note="web")
# Right port, wrong header
for port in 2152, 2123, 3386, 8805, 5060:
    add(udp(port), Raw(b"\0" * 64), "none", note=f"zeros to {port}")
    add(udp(port), Raw(b"\xff" * 64), "none", note=f"ones to {port}")
add(udp(2123), Raw(b"\x48\x20\x40\0" + b"\0" * 20), "none", note="length past the end")
add(tcp(3868), Raw(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\0" * 40), "none", note="TLS")
add(udp(53), Raw(b"\0\1\1\0\0\1\0\0\0\0\0\0\7example\3org\0\0\1\0\1"), "none", note="DNS")

wrpcap(str(here / "signalling.pcap"), packets)
(here / "signalling.txt").write_text("".join(f"{i + 1} {l}\n" for i, l in enumerate(lines)))
print(f"scapy {scapy.VERSION}: {len(packets)} packets")
