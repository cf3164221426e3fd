/* The floor that packets-to-rows is measured against: libpcap's loop over a
 * file, Ethernet, IP, TCP and UDP headers parsed and counted, nothing kept.
 * Prints packets and nanoseconds of CPU time. Usage: floor FILE ROUNDS */
#include <pcap/pcap.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t packets, octets, ports;

static void packet(u_char *user, const struct pcap_pkthdr *h, const u_char *b) {
	(void)user;
	packets++;
	octets += h->len;
	if (h->caplen < 34 || b[12] != 8 || b[13] != 0)
		return;
	unsigned head = (b[14] & 15) * 4, proto = b[23];
	if (h->caplen >= 14 + head + 8 && (proto == 6 || proto == 17))
		ports += (b[14 + head] << 8 | b[15 + head]) ^ (b[16 + head] << 8 | b[17 + head]);
}

int main(int argc, char **argv) {
	char err[PCAP_ERRBUF_SIZE];
	if (argc != 3)
		return 2;
	for (int n = atoi(argv[2]); n > 0; n--) {
		pcap_t *p = pcap_open_offline(argv[1], err);
		if (!p) {
			fprintf(stderr, "%s\n", err);
			return 1;
		}
		pcap_loop(p, -1, packet, NULL);
		pcap_close(p);
	}
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	printf("%llu %llu\n", (unsigned long long)packets, (unsigned long long)t.tv_sec * 1000000000ull + t.tv_nsec);
	return octets + ports == 0;
}
