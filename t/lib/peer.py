"""pylibmc for t/groups/interop.t: peer.py KIND get|set PREFIX HOST:PORT[=WEIGHT]...

Keys come on stdin, in hex, one a line. The value of a key is the prefix and its number. Prints how many were
stored, or found with this value, and how many it refuses to send: none.
"""

import sys

import pylibmc

BEHAVIORS = {
    "ketama": {"ketama_weighted": True},
    "ketama_unweighted": {"ketama": True},
    "modula": {},
}


def main(kind, what, prefix, *servers):
    weighted = []
    for server in servers:
        name, _, weight = server.partition("=")
        host, _, port = name.rpartition(":")
        weighted.append(f"{host}:{port}" + (f":{weight}" if weight else ""))
    client = pylibmc.Client(weighted, binary=False, behaviors=BEHAVIORS[kind])
    right = 0
    for number, line in enumerate(sys.stdin, 1):
        key, value = bytes.fromhex(line.strip()), f"{prefix}{number}".encode()
        if what == "set":
            right += bool(client.set(key, value))
        else:
            right += client.get(key) in (value, value.decode())
    print(right, 0, end="")


main(*sys.argv[1:])
