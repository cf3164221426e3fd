"""Writes independent.txt: addresses, their pseudonyms by yacryptopan 1.0.2 (over
pycryptodomex 3.24.2) for prefix, and by Python's hmac for hash; and of each key the
digest of "incident".

    pip install yacryptopan==1.0.2 && python independent.py > independent.txt
"""
import hmac
import ipaddress
import random

from yacryptopan import CryptoPAn

SAMPLE = bytes([21, 34, 23, 141, 51, 164, 207, 128, 19, 10, 91, 22, 73, 144, 125, 16,
                216, 152, 143, 131, 121, 121, 101, 39, 98, 87, 76, 45, 42, 132, 34, 2])
SPECIAL = """0.0.0.0 255.255.255.255 127.0.0.1 10.0.0.1 10.0.0.2 169.254.1.1 192.168.1.1 224.0.0.251
:: ::1 fe80::1 ff02::fb fc00::1 2001:db8:: 2001:db8::1 2001:db8:0:1::1 64:ff9b::a00:1 ::102:304
ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff""".split()


def hashed(key, address):
    mac = lambda data: hmac.new(key, data, "sha256").digest()
    full = address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
    return ipaddress.ip_address(b"\xfd" + mac(b"network")[:5] + mac(b"address" + full)[:10])


rng = random.Random(1)
for key in SAMPLE, rng.randbytes(32), rng.randbytes(32):
    print("key", key.hex(), hmac.new(key, b"identifierincident", "sha256").hexdigest())
    pan = CryptoPAn(key)
    addresses = [ipaddress.ip_address(a) for a in SPECIAL]
    addresses += [ipaddress.IPv4Address(rng.randbytes(4)) for _ in range(30)]
    addresses += [ipaddress.IPv6Address(rng.randbytes(16)) for _ in range(30)]
    near = int(ipaddress.ip_address("2001:db8:1:2::"))
    addresses += [ipaddress.IPv6Address(near ^ 1 << bit) for bit in range(0, 128, 7)]
    for a in addresses:
        print(a, ipaddress.ip_address(pan.anonymize(str(a))), hashed(key, a))
