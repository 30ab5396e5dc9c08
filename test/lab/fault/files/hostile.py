# Writes keys into etcd that no Patroni would write; standard library only. Runs on an etcd member.
#   hostile.py members PREFIX         beside the keys of a live scope, where Patroni itself passes them over
#   hostile.py copy FROM TO           copies a scope and spoils the copy, of which no Patroni knows
import base64
import json
import sys
import urllib.request


def ask(path, **fields):
    data = json.dumps({k: base64.b64encode(v).decode() for k, v in fields.items()}).encode()
    with urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:2379/v3/kv/" + path, data), timeout=5) as r:
        return json.load(r)


def put(key, value):
    ask("put", key=key, value=value)


def members(prefix):
    p = prefix.encode() + b"members/lab-"
    big = b"x" * 1_000_000
    # A slash after the name: Patroni lists only what lies directly below members/ (etcd3.py, k.count('/') == 1).
    put(p + b"\x1b[2J\x1b]0;owned\x07/key", b'{"state": "running"}')
    put(p + b"half/json", b'{"state": "run')
    put(p + b"large/json", b'{"state": "' + big + b'"}')
    put(p + b"large/text", big)
    put(p + b"\xe2\x80\xaereversed/key", b"{}")
    # This one Patroni does list. Neither candidate nor upstream: it opens no slot for it and asks it nothing.
    put(p + b"liar", json.dumps({
        "api_url": "http://user:hunter2@127.0.0.1:1/patroni?x=1", "state": "running\x1b[31m", "role": "emperor",
        "tags": {"nostream": True, "nofailover": True, "noloadbalance": True},
    }).encode())


def copy(source, target):
    source, target = source.encode(), target.encode()
    end = source[:-1] + bytes([source[-1] + 1])
    for kv in ask("range", key=source, range_end=end).get("kvs", []):
        key = base64.b64decode(kv["key"])
        put(target + key[len(source):], base64.b64decode(kv.get("value", "")))
    put(target + b"leader", b"postgres-1\n\x1b[31m")
    put(target + b"config", b'{"ttl": 30, "pause": fal')
    put(target + b"history", b'[[1, 2, "no recovery target specified"], [2, "x"], 3')
    put(target + b"sync", b'["postgres-1"]')
    put(target + b"status", b'{"optime": "\xff\xfe"}')
    put(target + b"failover", b'{"leader": "../../etc/passwd", "member": 7}')
    put(target + b"members/postgres-1", b"\x00\x01\x02\xff")
    put(target + b"members/postgres-2", b'{"state": "running", "xlog_location": -1, "timeline": 1e99}')
    put(target + b"members/" + b"n" * 4000, b"{}")
    put(target + b"members/\xff\xfe", b"{}")
    for i in range(8):
        put(target + b"members/large-%d" % i, b'{"state": "' + b"y" * 1_000_000 + b'"}')
    put(target + b"members/deep", b"[" * 400_000)


if __name__ == "__main__":
    {"members": members, "copy": copy}[sys.argv[1]](*sys.argv[2:])
