package features

import "github.com/picket-ids/picket/capture"

// kddServices are the 70 service names of NSL-KDD in ASCII order; the code of a
// service is its index here. oth_i stands behind them: FEATURES of KDD'99 that
// no NSL-KDD record has.
var kddServices = [...]string{
	"IRC", "X11", "Z39_50", "aol", "auth", "bgp", "courier", "csnet_ns", "ctf", "daytime",
	"discard", "domain", "domain_u", "echo", "eco_i", "ecr_i", "efs", "exec", "finger", "ftp",
	"ftp_data", "gopher", "harvest", "hostnames", "http", "http_2784", "http_443", "http_8001",
	"imap4", "iso_tsap", "klogin", "kshell", "ldap", "link", "login", "mtp", "name",
	"netbios_dgm", "netbios_ns", "netbios_ssn", "netstat", "nnsp", "nntp", "ntp_u", "other",
	"pm_dump", "pop_2", "pop_3", "printer", "private", "red_i", "remote_job", "rje", "shell",
	"smtp", "sql_net", "ssh", "sunrpc", "supdup", "systat", "telnet", "tftp_u", "tim_i", "time",
	"urh_i", "urp_i", "uucp", "uucp_path", "vmnet", "whois",
	"oth_i",
}

// kddTCP gives the ports of the KDD'99 TCP services (the services file of the
// time). No registered port belongs to harvest and pm_dump.
var kddTCP = map[uint16]string{
	5: "rje", 7: "echo", 9: "discard", 11: "systat", 13: "daytime", 15: "netstat", 20: "ftp_data",
	21: "ftp", 22: "ssh", 23: "telnet", 25: "smtp", 37: "time", 42: "name", 43: "whois", 53: "domain",
	57: "mtp", 70: "gopher", 71: "remote_job", 72: "remote_job", 73: "remote_job", 74: "remote_job",
	77: "rje", 79: "finger", 80: "http", 84: "ctf", 87: "link", 95: "supdup", 101: "hostnames",
	102: "iso_tsap", 105: "csnet_ns", 109: "pop_2", 110: "pop_3", 111: "sunrpc", 113: "auth",
	117: "uucp_path", 119: "nntp", 137: "netbios_ns", 138: "netbios_dgm", 139: "netbios_ssn",
	143: "imap4", 150: "sql_net", 175: "vmnet", 179: "bgp", 194: "IRC", 210: "Z39_50", 245: "link",
	389: "ldap", 433: "nnsp", 443: "http_443", 512: "exec", 513: "login", 514: "shell",
	515: "printer", 520: "efs", 530: "courier", 540: "uucp", 543: "klogin", 544: "kshell",
	2784: "http_2784", 5190: "aol", 6667: "IRC", 8001: "http_8001",
}

// kddUDP gives those of the UDP services: NSL-KDD's 17,614 UDP records name no
// others but private and other.
var kddUDP = map[uint16]string{53: "domain_u", 69: "tftp_u", 123: "ntp_u"}

// serviceCodes holds the service code of every TCP and UDP port.
var serviceCodes = func() (codes [2][1 << 16]uint8) {
	for p := range codes[0] {
		name := "other"
		if p < 1024 {
			// Unnamed and below 1024: 498 of the 506 SNMP records (port 161)
			// of NSL-KDD say private.
			name = "private"
		} else if p >= 6000 && p <= 6063 {
			name = "X11"
		}
		codes[0][p] = serviceCode[name]
		if name == "X11" {
			name = "other"
		}
		codes[1][p] = serviceCode[name]
	}
	for p, name := range kddTCP {
		codes[0][p] = serviceCode[name]
	}
	for p, name := range kddUDP {
		codes[1][p] = serviceCode[name]
	}
	return codes
}()

var serviceCode = func() map[string]uint8 {
	m := make(map[string]uint8, len(kddServices))
	for i, name := range kddServices {
		m[name] = uint8(i)
	}
	return m
}()

// service returns the KDD service code of a connection by its responder's port,
// or for ICMP by the type and code that opened it.
func service(proto uint8, port uint16, icmpType, icmpCode uint8) uint8 {
	switch proto {
	case capture.ProtoTCP, capture.ProtoSCTP:
		return serviceCodes[0][port]
	case capture.ProtoUDP:
		return serviceCodes[1][port]
	case capture.ProtoICMP:
		switch icmpType {
		case 0:
			return icmpServices.echoReply
		case 8:
			return icmpServices.echo
		case 3:
			return icmpServices.unreachable(icmpCode == 3)
		case 5:
			return icmpServices.redirect
		case 11:
			return icmpServices.exceeded
		}
		return icmpServices.other
	case capture.ProtoICMPv6:
		switch icmpType {
		case 128:
			return icmpServices.echo
		case 129:
			return icmpServices.echoReply
		case 1:
			return icmpServices.unreachable(icmpCode == 4)
		case 137:
			return icmpServices.redirect
		case 3:
			return icmpServices.exceeded
		}
		return icmpServices.other
	}
	return serviceCode["other"]
}

type icmpCodes struct{ echo, echoReply, port, host, redirect, exceeded, other uint8 }

var icmpServices = icmpCodes{
	echo: serviceCode["eco_i"], echoReply: serviceCode["ecr_i"],
	port: serviceCode["urp_i"], host: serviceCode["urh_i"],
	redirect: serviceCode["red_i"], exceeded: serviceCode["tim_i"], other: serviceCode["oth_i"],
}

func (c icmpCodes) unreachable(port bool) uint8 {
	if port {
		return c.port
	}
	return c.host
}

// Protocol codes of the feature protocol_type.
const (
	codeTCP = iota
	codeUDP
	codeICMP
	codeGTP
	codeSIP
	codeDiameter
	codeOther
)

var protocolNames = [...]string{"tcp", "udp", "icmp", "gtp", "sip", "diameter", "other"}

// serviceNames are those of today's well-known ports, for people.
var serviceNames = map[uint16]string{
	20: "ftp-data", 21: "ftp", 22: "ssh", 23: "telnet", 25: "smtp", 53: "dns", 67: "dhcp", 68: "dhcp",
	69: "tftp", 80: "http", 88: "kerberos", 102: "s7comm", 110: "pop3", 111: "sunrpc", 123: "ntp", 137: "netbios",
	138: "netbios", 139: "netbios", 143: "imap", 161: "snmp", 162: "snmp", 389: "ldap", 443: "https", 445: "smb",
	500: "isakmp", 502: "modbus", 514: "syslog", 515: "printer", 546: "dhcpv6", 547: "dhcpv6", 554: "rtsp", 587: "smtp",
	636: "ldaps", 853: "dns-over-tls", 993: "imaps", 995: "pop3s", 1080: "socks", 1433: "mssql", 1521: "oracle",
	1723: "pptp", 1883: "mqtt", 1900: "ssdp", 3306: "mysql", 3389: "rdp", 4500: "isakmp", 4840: "opcua",
	5353: "mdns", 5355: "llmnr", 5432: "postgresql", 5683: "coap", 5684: "coaps", 5900: "vnc", 6379: "redis",
	7547: "tr069", 8080: "http", 8443: "https", 8883: "mqtts", 9100: "printer", 20000: "dnp3", 44818: "enip",
	47808: "bacnet", portSIP: "sip", portSIPS: "sips", portGTPC: "gtp-c", portGTPU: "gtp-u", portGTPPrime: "gtp-prime",
	portDiameter: "diameter", portPFCP: "pfcp", portS1AP: "s1ap", portNGAP: "ngap",
}

// ServiceName names the application protocol registered for a responder's port,
// "" when none is known.
func ServiceName(proto uint8, port uint16) string {
	switch proto {
	case capture.ProtoTCP, capture.ProtoUDP, capture.ProtoSCTP:
		return serviceNames[port]
	}
	return ""
}
