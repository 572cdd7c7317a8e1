"""Speaks to etcd over its JSON gateway, for the tests: writes of all kinds, and what a revision holds.

talk.py URL CA CERT KEY load COUNT SEED    writes so many transactions; the last revision goes to standard output
talk.py URL CA CERT KEY write SEED         writes until it is killed, whatever happens to the cluster
talk.py URL CA CERT KEY fill COUNT BYTES   puts so many values of so many bytes, a key each; the last revision goes to standard output
talk.py URL CA CERT KEY by OF KEY          puts KEY in one transaction: "good" where OF has the value "good", else "bad"
talk.py URL CA CERT KEY lease ID TTL KEY   grants a lease of this id, again if there is one, and puts KEY with it; its revision
talk.py URL CA CERT KEY raise KIND MEMBER  raises an alarm for a member
talk.py URL CA CERT KEY dump REVISION...   a line a key of all revisions: revision, key, value, create, mod, version, lease
"""

import base64
import http.client
import json
import random
import ssl
import sys
import time
import urllib.parse


class Etcd:
    def __init__(self, url, ca, cert, key):
        self.url = urllib.parse.urlparse(url)
        self.tls = None
        if self.url.scheme == "https":
            self.tls = ssl.create_default_context(cafile=ca)
            self.tls.load_cert_chain(cert, key)
        self.connection = None

    def call(self, path, body):
        if self.connection is None:
            at = (self.url.hostname, self.url.port)
            self.connection = http.client.HTTPSConnection(*at, timeout=30, context=self.tls) if self.tls else http.client.HTTPConnection(*at, timeout=30)
        self.connection.request("POST", "/v3/" + path, json.dumps(body))
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {text[:300]}")
        return json.loads(text)


def b64(data):
    return base64.b64encode(data).decode()


def put(key, value, lease=None):
    body = {"key": b64(key), "value": b64(value)}
    if lease:
        body["lease"] = lease
    return body


def keys_and_leases(etcd):
    keys = [b"/registry/%s/ns%d/name-%04d" % (kind, n % 7, n) for n in range(150) for kind in (b"pods", b"secrets", b"leases")]
    keys += [b"\x00odd\xff/\xfe%d" % n for n in range(5)]
    return keys, [etcd.call("lease/grant", {"TTL": 3600 + n})["ID"] for n in range(5)]


def change(etcd, dice, keys, leases):
    """A put, a deletion, a range deleted, or a transaction of several keys, some with leases; its revision."""
    what, key = dice.random(), dice.choice(keys)
    value = dice.randbytes(dice.choice([0, 5, 300, 3000])) + b"x" * dice.choice([0, 900])
    if what < 0.6:
        answer = etcd.call("kv/put", put(key, value, dice.choice(leases) if dice.random() < 0.2 else None))
    elif what < 0.75:
        answer = etcd.call("kv/deleterange", {"key": b64(key)})
    elif what < 0.8:
        prefix = key[:-1]
        answer = etcd.call("kv/deleterange", {"key": b64(prefix), "range_end": b64(prefix[:-1] + bytes([prefix[-1] + 1]))})
    else:
        several = dice.sample(keys, 4)
        ops = [{"request_put": put(k, value, dice.choice(leases) if dice.random() < 0.2 else None)} for k in several[:3]]
        ops.append({"request_delete_range": {"key": b64(several[3])}})
        answer = etcd.call("kv/txn", {"success": ops})
    return answer["header"]["revision"]


def load(etcd, count, seed):
    dice, revision = random.Random(seed), 0
    keys, leases = keys_and_leases(etcd)
    for _ in range(count):
        revision = change(etcd, dice, keys, leases)
    print(revision)


def write(etcd, seed):
    """As a load, and leases come and go; what a cluster cannot take just then is not written."""
    dice = random.Random(seed)
    keys, leases = keys_and_leases(etcd)
    while True:
        try:
            change(etcd, dice, keys, leases)
            what = dice.random()
            if what < 0.01:
                leases.append(etcd.call("lease/grant", {"TTL": 7200 + len(leases)})["ID"])
            elif what < 0.015 and len(leases) > 3:
                etcd.call("lease/revoke", {"ID": leases.pop(dice.randrange(len(leases)))})
        except (OSError, http.client.HTTPException, RuntimeError):
            etcd.connection = None


def fill(etcd, count, size):
    dice, revision = random.Random(count), 0
    for n in range(count):
        revision = etcd.call("kv/put", put(b"/fill/%d" % n, dice.randbytes(size)))["header"]["revision"]
    print(revision)


def put_by(etcd, of, key):
    is_good = {"key": b64(of), "target": "VALUE", "result": "EQUAL", "value": b64(b"good")}
    either = [[{"request_put": put(key, value)}] for value in (b"good", b"bad")]
    print(etcd.call("kv/txn", {"compare": [is_good], "success": either[0], "failure": either[1]})["header"]["revision"])


def leased(etcd, lease, seconds, key):
    try:
        etcd.call("lease/revoke", {"ID": lease})
    except RuntimeError:
        pass  # There was none.
    etcd.call("lease/grant", {"ID": lease, "TTL": seconds})
    print(etcd.call("kv/put", put(key, b"held", lease))["header"]["revision"])


def answered(etcd, path, body):
    """What is answered once there is a leader: members elect another one while one of them dies."""
    for left in reversed(range(100)):
        try:
            return etcd.call(path, body)
        except (OSError, http.client.HTTPException, RuntimeError) as e:
            if left == 0 or (isinstance(e, RuntimeError) and " 503 " not in str(e)):
                raise
            etcd.connection = None
            time.sleep(0.1)


def dump(etcd, revisions):
    for revision in revisions:
        answer = answered(etcd, "kv/range", {"key": b64(b"\0"), "range_end": b64(b"\0"), "revision": revision})
        for kv in answer.get("kvs", []):
            fields = [kv["key"], kv.get("value", ""), kv["create_revision"], kv["mod_revision"], kv["version"], kv.get("lease", "0")]
            print(revision, *(field or "-" for field in fields))


if __name__ == "__main__":
    url, ca, cert, key, verb = sys.argv[1:6]
    etcd = Etcd(url, ca, cert, key)
    if verb == "load":
        load(etcd, int(sys.argv[6]), int(sys.argv[7]))
    elif verb == "write":
        write(etcd, int(sys.argv[6]))
    elif verb == "fill":
        fill(etcd, int(sys.argv[6]), int(sys.argv[7]))
    elif verb == "by":
        put_by(etcd, *(name.encode() for name in sys.argv[6:8]))
    elif verb == "lease":
        leased(etcd, sys.argv[6], sys.argv[7], sys.argv[8].encode())
    elif verb == "raise":
        etcd.call("maintenance/alarm", {"action": "ACTIVATE", "memberID": sys.argv[7], "alarm": sys.argv[6]})
    else:
        dump(etcd, sys.argv[6:])
