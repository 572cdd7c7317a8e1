"""`--vectors`: checks this reader, in the direction of reading, against a file of test vectors."""

import json
from pathlib import Path

from . import shapes
from .cbor import decode, encode
from .chunks import parse_bundle
from .codec import decode as decode_body
from .crypto import H, KD, MAC, u32, verify, xwing_public
from .envelope import CHUNK, TABLE, Envelope, Head, class_secret, object_keys, parse_header
from .errors import Refused, WrongKey
from .keys import Config, Keyring, Secret, Slot
from .objects import MANIFEST, Repository
from .tree import Tree


class FakeRegion:
    """Objects in memory."""

    def __init__(self, repository, objects):
        self.repository, self.objects = repository, objects

    def read(self, key):
        return self.objects[key]


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def refused(action, what):
    try:
        action()
    except Refused:
        return
    raise AssertionError(f"not refused: {what}")


def check_derivations(vectors):
    for v in vectors["derive"]:
        output = bytes.fromhex(v["output"])
        expect(KD(v["context"], bytes.fromhex(v["material"]), len(output)) == output, v["context"])
    for v in vectors["classes"]:
        kind = v["class"]
        secret = class_secret(bytes.fromhex(v["epoch key"]), v["domain"], kind)
        expect(secret.hex() == v["secret"], f"class {kind}")
    for v in vectors["chunks"]:
        key = KD("chunk id", bytes.fromhex(v["id root"]) + u32(v["domain"]), 32)
        expect(MAC(key, bytes.fromhex(v["plain"])).hex() == v["id"], "chunk id")


def check_page(vectors):
    """The envelope of section 3: a chunk record and a table, no padding record."""
    v = vectors["page"]
    raw = bytes.fromhex(v["object"])
    header = parse_header(raw, bytes.fromhex(vectors["repository"]), "page")
    keys = object_keys(bytes.fromhex(v["secret"]), header.raw)
    expect(keys[1] == raw[80:112] and H(raw).hex() == v["name"], "commitment and name of the page")
    found = list(Envelope("page", header, keys).records(raw, len(raw) - 8))
    expect([head.type for _, head, _ in found] == [CHUNK, TABLE], "records of the page")
    expect(found[0][1].id.hex() == v["id"] and found[0][2] == b"hello holdfast", "chunk of the page")


def check_bodies(vectors):
    for v in vectors["codecs"]:
        plain, body = bytes.fromhex(v["plain"]), bytes.fromhex(v["body"])
        expect(decode_body(v["codec"], body, len(plain), "codec") == plain, f"codec {v['codec']}")
        refused(lambda: decode_body(v["codec"], body[:-1], len(plain), "codec"), "a short body")
        refused(lambda: decode_body(v["codec"], body + b"\0", len(plain), "codec"), "a long body")
    v = vectors["bundle"]
    plain = [bytes.fromhex(member["plain"]) for member in v["members"]]
    body = bytes.fromhex(v["body"])
    members, payload = parse_bundle(Head(b"", 0, sum(map(len, plain)), 241, 0, 0), body, "bundle")
    expect([payload[at : at + length] for _, at, length in members] == plain, "members of the bundle")
    expect([id.hex() for id, _, _ in members] == [m["id"] for m in v["members"]], "ids of the bundle")


SECRETS = {1: Secret.passphrase, 2: lambda data: Secret.key_file(bytes.fromhex(data.decode())), 3: Secret.recovery}


def check_keys(vectors):
    """Every slot opens the configuration to the same keyring; other secrets open nothing."""
    repository = bytes.fromhex(vectors["repository"])
    objects = {f"keys/{v['id']}": bytes.fromhex(v["object"]) for v in vectors["slots"]}
    region = FakeRegion(repository, objects)
    config = None
    for v in vectors["slots"]:
        slot = Slot(region, f"keys/{v['id']}")
        secret = SECRETS[v["kind"]](v["secret"].encode())
        expect(secret.seed(slot.head, "slot").hex() == v["seed"], f"seed of kind {v['kind']}")
        slot.open(secret)
        expect(xwing_public(slot.xwing).hex() == v["xwing public"], f"public key of kind {v['kind']}")
        raw = bytes.fromhex(vectors["config"]["object"])
        config = Config(raw, "config/00000001", 1, slot.digest, slot.owner, repository)
        grant = config.grant(slot.id, slot.xwing)
        expect(grant.hex() == vectors["config"]["grant"], "G")
        config.keyring(grant).check_slot(slot)
        try:
            slot.open(Secret(v["kind"], b"\0" * 32))
        except WrongKey:
            continue
        raise AssertionError("a wrong secret opened a slot")
    expect(config.digest.hex() == vectors["config"]["digest"], "digest of the configuration")
    return region, config


def check_manifest(vectors, region, config):
    v = vectors["manifest"]
    region.objects[v["key"]] = bytes.fromhex(v["object"])
    ring = decode(bytes.fromhex(vectors["keyring"]), shapes.KEYRING, "keyring")
    repository = Repository(region, None, [config], Keyring(ring))
    signed = repository.signed(v["key"], {MANIFEST})
    expect(encode(signed.body).hex() == v["cbor"], "manifest")


def check_refusals(vectors):
    v = vectors["ed25519"]
    message = bytes.fromhex(v["message"])
    for s in v["signatures"]:
        key, signature = bytes.fromhex(s["key"]), bytes.fromhex(s["signature"])
        if s["good"]:
            verify(key, signature, message, "signature")
        else:
            refused(lambda: verify(key, signature, message, "signature"), s["why"])
    decode(bytes.fromhex(vectors["cbor"]["good"]), shapes.RELEASE, "release")
    for s in vectors["cbor"]["bad"]:
        refused(lambda: decode(bytes.fromhex(s["cbor"]), shapes.RELEASE, "release"), s["why"])


class OnePage:
    """Chunks of which every one is the same page."""

    def __init__(self, page):
        self.page = page

    def get(self, *_):
        return self.page


def check_pages(vectors):
    def names(page):
        return [entry[0] for entry in Tree(OnePage(bytes.fromhex(page)), 0).children({15: bytes(32)}, "page")]

    expect(names(vectors["pages"]["good"]) == [b"a", b"b\xff"], "a page")
    for s in vectors["pages"]["bad"]:
        refused(lambda: names(s["cbor"]), s["why"])


def check_file(path):
    vectors = json.loads(Path(path).read_text())
    check_derivations(vectors)
    check_page(vectors)
    check_bodies(vectors)
    region, config = check_keys(vectors)
    check_manifest(vectors, region, config)
    check_refusals(vectors)
    check_pages(vectors)
    print(json.dumps({"vectors": sorted(vectors)}))
    return 0
