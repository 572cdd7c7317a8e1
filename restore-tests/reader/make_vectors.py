"""Writes the test vectors (restore-tests/vectors/vectors.json) with the reader's own primitives.

    python make_vectors.py GOLDEN OUT

What Python cannot compute stands in GOLDEN, written once by the program: X-Wing encapsulation (its randomness cannot
be given to `cryptography`) and FastCDC cut points. Everything else is computed here, in the direction of writing, and
is the same at every run. All byte strings are lower-case hex.
"""

import json
import sys
from pathlib import Path

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from holdfast_reader import bech32m, cbor, codec, crypto
from holdfast_reader.crypto import H, KD, MAC, ZERO_NONCE, seal, signed_message, u32, u64
from holdfast_reader.envelope import BODY, BUNDLE, CHUNK, PADDING, TABLE, Envelope
from holdfast_reader.envelope import class_secret, make_header, object_keys

REPOSITORY = bytes(range(16))
ID_ROOT, EPOCH_KEY, OWNER, WRITER, NEXT_OWNER = (bytes([n]) * 32 for n in (1, 2, 3, 4, 5))
NOW = 1_700_000_000_000
GRANT = bytes([6]) * 32


def stream(name, length):
    """The deterministic input of a vector: extended output of BLAKE3 over the name."""
    return blake3(name.encode()).digest(length)


def public(seed):
    return crypto.signing_public(seed)


def sign(seed, message):
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


class Sealer:
    """Seals an object record by record."""

    def __init__(self, kind, secret, salt):
        header = make_header(kind, 0, 1, REPOSITORY, salt)
        keys = object_keys(secret, header)
        self.envelope = Envelope("vector", None, keys)
        self.out = header + keys[1]
        self.number = 0

    def record(self, kind, codec_id, plain, body, id=None):
        at = len(self.out)
        self.out += self.envelope.seal_record(self.number, kind, codec_id, plain, body, id)
        self.number += 1
        return at

    def padding(self, length):
        self.record(PADDING, 0, length, bytes(length))


def pack(kind, secret, salt, records, padded):
    """A pack of (type, codec, plain length, body, id)."""
    sealer = Sealer(kind, secret, salt)
    table = b"".join(u64(sealer.record(*record)) + u32(n) for n, record in enumerate(records))
    if padded:
        size = len(sealer.out) + 88 + 88 + len(table) + 8
        step = max(64 << 10, (1 << size.bit_length() - 1) // 128)
        sealer.padding(-size % step)
    at = sealer.record(TABLE, 0, len(table), table)
    return sealer.out + u64(at)


def derivations():
    parts = {
        "class": (EPOCH_KEY + u32(0) + b"\1", 32),
        "object": (bytes([9]) * 32 + make_header(1, 0, 1, REPOSITORY, bytes([5]) * 32), 96),
        "chunk id": (ID_ROOT + u32(7), 32),
        "gear": (ID_ROOT + u32(7), 8),
        "slot": (bytes([8]) * 32 + H(b"head"), 96),
        "wrap": (bytes([8]) * 32 + REPOSITORY + u32(1) + bytes([7]) * 16, 64),
        "ring": (GRANT + H(b"head"), 64),
    }
    return [{"context": c, "material": m.hex(), "output": KD(c, m, n).hex()} for c, (m, n) in parts.items()]


def classes():
    kinds = {1: 1, 2: 2, 3: 3, 4: 4}
    return [
        {"epoch key": EPOCH_KEY.hex(), "domain": 3, "class": c, "secret": class_secret(EPOCH_KEY, 3, k).hex()}
        for c, k in kinds.items()
    ]


def chunk_ids():
    out = []
    for domain, plain in ((0, b"hello holdfast"), (0, b""), (7, stream("chunk", 1000))):
        out.append(
            {
                "id root": ID_ROOT.hex(),
                "domain": domain,
                "plain": plain.hex(),
                "id": MAC(KD("chunk id", ID_ROOT + u32(domain), 32), plain).hex(),
                "gear seed": KD("gear", ID_ROOT + u32(domain), 8).hex(),
            }
        )
    return out


def page_vector():
    """The vector of section 3."""
    secret, plain = bytes([9]) * 32, b"hello holdfast"
    id = MAC(KD("chunk id", ID_ROOT + u32(0), 32), plain)
    raw = pack(1, secret, bytes([5]) * 32, [(CHUNK, 0, len(plain), plain, id)], False)
    return {"secret": secret.hex(), "id": id.hex(), "object": raw.hex(), "name": H(raw).hex()}


def float_plain(word, phase, count, tail):
    """Words with a narrow exponent and noisy mantissa, behind `phase` bytes and before `tail`."""
    noise = stream(f"floats {word} {phase}", count * word)
    words = bytearray(noise)
    for n in range(count):
        words[n * word + word - 1] = 0x3C + (noise[n * word + word - 1] & 0x83)
    return stream("phase", phase) + bytes(words) + stream("tail", tail)


def planes(plain, word, phase, both=False):
    """Section 4, in the direction of writing, word by word as the page says it."""
    count = (len(plain) - phase) // word
    bits = word * 8
    rotated = []
    for n in range(count):
        value = int.from_bytes(plain[phase + n * word : phase + (n + 1) * word], "little")
        rotated.append((value << 1 | value >> bits - 1) & (1 << bits) - 1)
    plane = [bytes(value >> 8 * place & 0xFF for value in rotated) for place in range(word)]
    frame = zstandard.ZstdCompressor(level=1).compress(plane[-1])
    rest = b"".join(plane[place] for place in range(word - 2, -1, -1))
    if both:
        rest = zstandard.ZstdCompressor(level=1).compress(rest)
    return bytes([phase]) + u32(len(frame)) + plain[:phase] + frame + rest + plain[phase + count * word :]


def codecs():
    text = b"all work and no play makes a dull vector\n" * 20
    out = [{"codec": 0, "plain": text[:50].hex(), "body": text[:50].hex()}]
    out.append({"codec": 1, "plain": text.hex(), "body": zstandard.ZstdCompressor(level=3).compress(text).hex()})
    for name, word, phase, tail in (("bf16", 2, 1, 1), ("f16", 2, 0, 0), ("f32", 4, 3, 2)):
        plain = float_plain(word, phase, 150, tail)
        out.append({"codec": codec.NAMES.index(name), "plain": plain.hex(), "body": planes(plain, word, phase).hex()})
    # Words of which the last bits say nothing.
    plain = stream("phase", 1) + b"".join(bytes([low & 0xF8, 0x28 + (high & 0x87)]) for low, high in zip(*[iter(stream("few", 600))] * 2)) + b"t"
    body = planes(plain, 2, 1, both=True)
    out.append({"codec": codec.PLANES, "plain": plain.hex(), "body": body.hex()})
    return out


def bundle():
    """A bundle's body, and a padded pack with it and a chunk."""
    secret = class_secret(EPOCH_KEY, 0, 1)
    chunks = [stream(f"member {n}", 100 + n) for n in range(3)]
    ids = [MAC(KD("chunk id", ID_ROOT + u32(0), 32), chunk) for chunk in chunks]
    head = u32(3) + b"".join(id + u32(len(chunk)) for id, chunk in zip(ids, chunks))
    body = head + b"".join(chunks)
    plain = sum(map(len, chunks))
    records = [(BUNDLE, 0, plain, body, None), (CHUNK, 0, len(chunks[0]), chunks[0], ids[0])]
    raw = pack(1, secret, bytes([10]) * 32, records, True)
    return {
        "epoch key": EPOCH_KEY.hex(),
        "salt": (bytes([10]) * 32).hex(),
        "members": [{"id": id.hex(), "plain": chunk.hex()} for id, chunk in zip(ids, chunks)],
        "body": body.hex(),
        "pack size": len(raw),
        "pack name": H(raw).hex(),
    }


def slot(number, kind, seed, secret, parameters):
    """A slot made by `init`: it is anchored before configuration 1."""
    salt, id = bytes([20 + number]) * 32, bytes([30 + number]) * 16
    head = {0: 1, 1: REPOSITORY, 2: id, 3: kind, 5: salt} | ({4: parameters} if parameters else {})
    raw_head = cbor.encode(head)
    keys = KD("slot", seed(salt) + H(raw_head), 96)
    anchor = cbor.encode({0: public(OWNER), 1: 0, 2: bytes(32)})
    box = seal(keys[:32], ZERO_NONCE, H(raw_head), anchor)
    body = cbor.encode({0: raw_head, 1: keys[32:64], 2: box})
    return {
        "kind": kind,
        "secret": secret,
        "id": id.hex(),
        "salt": salt.hex(),
        "seed": seed(salt).hex(),
        "object": (body + H(body)).hex(),
        "xwing seed": keys[64:].hex(),
        "xwing public": crypto.xwing_public(keys[64:]).hex(),
    }


def slots():
    passphrase = "correct vectors need no strong passphrase"
    key, recovery = bytes([40]) * 32, bytes([41]) * 32
    return [
        slot(1, 1, lambda s: crypto.argon2id(passphrase.encode(), s, 65_536, 3, 4), passphrase, [65_536, 3, 4]),
        slot(2, 2, lambda _: key, key.hex(), None),
        slot(3, 3, lambda _: recovery, bech32m.encode("hfkey", recovery), None),
    ]


def keyring(made):
    writer = H(public(WRITER))[:16]
    listed = [
        {
            0: bytes.fromhex(s["id"]),
            1: s["kind"],
            2: "",
            3: bytes.fromhex(s["xwing public"]),
            4: NOW,
            5: bytes.fromhex(s["object"])[-32:],
        }
        for s in made
    ]
    return {
        0: ID_ROOT,
        1: [{0: 0, 1: [{0: 1, 1: EPOCH_KEY, 2: NOW, 3: 0}]}],
        2: listed,
        3: [{0: writer, 1: public(WRITER), 2: 63, 3: [0], 4: [], 5: "first writer", 6: NOW}],
        4: NEXT_OWNER,
        5: [{0: writer, 1: WRITER}],
    }


def wrap(slot_id, shared):
    keys = KD("wrap", shared + REPOSITORY + u32(1) + slot_id, 64)
    return keys[32:], seal(keys[:32], ZERO_NONCE, b"", GRANT)


def config(made, golden):
    """Configuration 1, for the slots above."""
    listed = []
    for entry, ciphertext in zip(made, golden["ciphertexts"], strict=True):
        ciphertext, id = bytes.fromhex(ciphertext), bytes.fromhex(entry["id"])
        shared = crypto.xwing_decapsulate(bytes.fromhex(entry["xwing seed"]), ciphertext)
        commitment, wrapped = wrap(id, shared)
        listed.append({0: id, 1: ciphertext, 2: commitment, 3: wrapped})
    profile = {0: 1, 1: 1, 2: 256 << 10, 3: 1 << 20, 4: 4 << 20, 5: 256 << 10, 6: 512}
    features = {0: ["base1"], 1: ["base1"], 2: ["epochs1"]}
    head = cbor.encode(
        {0: 1, 1: REPOSITORY, 2: 1, 3: bytes(32), 4: public(NEXT_OWNER), 5: features, 6: 1, 7: [profile]}
        | {8: listed, 9: NOW}
    )
    keys = KD("ring", GRANT + H(head), 64)
    sealed = seal(keys[:32], ZERO_NONCE, b"", cbor.encode(keyring(made)))
    message = signed_message(32, REPOSITORY, "config/00000001", H(head + keys[32:] + sealed))
    body = cbor.encode({0: head, 1: keys[32:], 2: sealed, 3: sign(OWNER, message)})
    return {"grant": GRANT.hex(), "created": NOW, "object": (body + H(body)).hex(), "digest": H(body).hex()}


def manifest(digest):
    """A manifest of an empty directory, sealed and signed."""
    sid, salt = bytes([50]) * 16, bytes([51]) * 32
    root = {0: b"", 1: 1, 2: 0o755, 3: 0, 4: 0, 5: -1, 6: 999_999_999, 7: 5, 8: 6, 9: 7}
    source = {0: "files", 1: "name", 2: "host", 3: [b"/srv/\xff"]}
    body = {0: {0: 1, 1: digest, 2: 1}, 1: sid, 2: source, 3: 0, 5: NOW, 6: NOW + 1, 7: root}
    body |= {8: {k: k for k in range(8)}, 9: {k: 10 + k for k in range(5)}}
    body |= {10: [{0: b"/a", 1: "denied", 2: "why"}], 11: 1, 12: 0, 16: 1, 17: 0, 18: 1, 19: bytes(32)}
    body |= {20: [[bytes([52]) * 16, bytes([53]) * 32]], 21: "0", 22: H(cbor.encode(root)), 23: ["tag"]}
    body |= {24: [["key", "value"]], 25: 99, 26: bytes([54]) * 16}
    key = f"snapshots/{sid.hex()}"
    plain = cbor.encode(body) + b"\1" + H(public(WRITER))[:16]
    plain += sign(WRITER, signed_message(4, REPOSITORY, key, H(plain)))
    sealer = Sealer(4, class_secret(EPOCH_KEY, 0, 4), salt)
    sealer.record(BODY, 0, len(plain), plain)
    sealer.padding(-(len(sealer.out) + 88 + 32) % 4096)
    raw = sealer.out + H(sealer.out)
    return {"key": key, "salt": salt.hex(), "cbor": cbor.encode(body).hex(), "object": raw.hex()}


def signatures():
    """What a strict verifier refuses, and one it takes: (key, message, signature)."""
    message = b"holdfast"
    good = sign(WRITER, message)
    order = 2**252 + 27742317777372353535851937790883648493
    malleable = good[:32] + (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    identity = b"\1" + bytes(31)
    bad = {
        "s not reduced": (public(WRITER), malleable),
        "key of small order": (identity, identity + bytes(32)),
        "key of order eight": (bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), good),
        "another message": (public(WRITER), sign(WRITER, b"other")),
    }
    listed = [{"why": why, "key": k.hex(), "signature": s.hex(), "good": False} for why, (k, s) in bad.items()]
    listed.append({"why": "", "key": public(WRITER).hex(), "signature": good.hex(), "good": True})
    return {"message": message.hex(), "signatures": listed}


def releases():
    """Forms of one hold release; only the first is deterministic and complete."""
    good = cbor.encode({0: {0: 1, 1: bytes(32), 2: 1}, 1: bytes(16), 2: -5})
    fresh, id = cbor.encode({0: 1, 1: bytes(32), 2: 1}), cbor.encode(bytes(16))
    bad = {
        "behind the end": good + b"\0",
        "long integer": good[:-1] + b"\x38\x04",
        "keys out of order": b"\xa3\x01" + id + b"\0" + fresh + b"\2\x24",
        "key twice": b"\xa4" + good[1:] + b"\2\x24",
        "unknown key": b"\xa4" + good[1:] + b"\3\0",
        "null for absent": b"\xa4" + good[1:] + b"\3\xf6",
        "key missing": b"\xa2\0" + fresh + b"\1" + id,
        "indefinite map": b"\xbf" + good[1:] + b"\xff",
        "indefinite bytes": good.replace(id, b"\x5f" + id + b"\xff"),
        "text for bytes": good.replace(id, b"\x70" + bytes(16)),
        "tag": b"\xc1" + good,
        "deep": b"\x81" * 5000,
        "short": good[:-1],
    }
    return {"good": good.hex(), "bad": [{"why": why, "cbor": raw.hex()} for why, raw in bad.items()]}


def pages():
    """Tree pages: one that is right, and what no directory can hold."""

    def entry(name, **more):
        plain = {0: name, 1: 0, 2: 0o644, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0, 8: 0, 9: 1}
        return plain | {int(key[1:]): value for key, value in more.items()}

    def leaf(*entries):
        return cbor.encode({0: 0, 1: list(entries)})

    good = leaf(entry(b"a", k11=3, k12=b"abc"), entry(b"b\xff"))
    bad = {
        "above": leaf(entry(b"..")),
        "here": leaf(entry(b".")),
        "no name": leaf(entry(b"")),
        "two steps": leaf(entry(b"a/b")),
        "from the root": leaf(entry(b"/etc")),
        "zero byte": leaf(entry(b"a\0b")),
        "long name": leaf(entry(b"n" * 256)),
        "twice": leaf(entry(b"a"), entry(b"a")),
        "out of order": leaf(entry(b"b"), entry(b"a")),
        "unknown type": leaf(entry(b"a", k1=7)),
        "leaf of level 1": cbor.encode({0: 1, 1: [entry(b"a")]}),
        "level 9": cbor.encode({0: 9, 2: [{0: bytes(32), 1: b"a", 2: 1}]}),
        "inner page of level 0": cbor.encode({0: 0, 2: [{0: bytes(32), 1: b"a", 2: 1}]}),
        "neither": cbor.encode({0: 0}),
    }
    return {"good": good.hex(), "bad": [{"why": why, "cbor": raw.hex()} for why, raw in bad.items()]}


def make(golden):
    made = slots()
    configuration = config(made, golden["xwing"])
    return {
        "repository": REPOSITORY.hex(),
        "derive": derivations(),
        "classes": classes(),
        "chunks": chunk_ids(),
        "page": page_vector(),
        "codecs": codecs(),
        "bundle": bundle(),
        "slots": made,
        "keyring": cbor.encode(keyring(made)).hex(),
        "config": configuration,
        "manifest": manifest(bytes.fromhex(configuration["digest"])),
        "ed25519": signatures(),
        "cbor": releases(),
        "pages": pages(),
    }


if __name__ == "__main__":
    made = make(json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[2]).write_text(json.dumps(made, indent=1) + "\n")
