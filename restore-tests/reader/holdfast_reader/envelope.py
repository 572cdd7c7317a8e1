"""The envelope of section 3: header, commitment, records."""

from dataclasses import dataclass

from .crypto import KD, MAC, commit, read_u, same, seal, u32, unseal
from .errors import Refused

MAGIC = b"HOLDFST1"
HEADER = 80
START = HEADER + 32
OVERHEAD = 88
RECORDS_MAX, CHUNK_MAX, BUNDLE_MAX, BODY_MAX = 65_536, 4 << 20, 1 << 20, 48 << 20
CLASS_OF_KIND = {1: 1, 2: 2, 3: 3} | {kind: 4 for kind in range(4, 22)}
CHUNK, BODY, BUNDLE, TABLE, PADDING = 1, 240, 241, 254, 255
LENGTH_MAX = {CHUNK: CHUNK_MAX, BODY: BODY_MAX, BUNDLE: BUNDLE_MAX}


@dataclass(frozen=True)
class Header:
    kind: int
    domain: int
    epoch: int
    repository: bytes
    raw: bytes


@dataclass(frozen=True)
class Head:
    """The head of a record, opened."""

    id: bytes
    sealed: int
    plain: int
    type: int
    codec: int
    number: int


def class_secret(epoch_key, domain, kind):
    """The secret of all objects of one class under one key epoch."""
    return KD("class", epoch_key + u32(domain) + bytes([CLASS_OF_KIND[kind]]), 32)


def object_keys(secret, header):
    """K, commitment and N of one object."""
    out = KD("object", secret + header, 96)
    return out[:32], out[32:64], out[64:]


def make_header(kind, domain, epoch, repository, salt):
    return MAGIC + bytes([kind, 0]) + bytes(2) + u32(domain) + u32(epoch) + bytes(12) + repository + salt


def parse_header(raw, repository, what):
    """Judgement up to "newer program needed"."""
    if len(raw) < START or raw[:8] != MAGIC:
        raise Refused(f"{what}: no object of this format")
    kind, wrap, flags = raw[8], raw[9], read_u(raw, 10, 2)
    if raw[32:48] != repository:
        raise Refused(f"{what}: another repository's")
    if flags or wrap:
        raise Refused(f"{what}: needs a newer program: wrap {wrap}, flags {flags:016b}")
    if kind not in CLASS_OF_KIND or any(raw[20:32]):
        raise Refused(f"{what}: kind {kind}, or bytes that are not zero")
    return Header(kind, read_u(raw, 12, 4), read_u(raw, 16, 4), raw[32:48], raw[:HEADER])


class Envelope:
    """An object's header and keys."""

    def __init__(self, what, header, keys):
        self.what, self.header = what, header
        self.key, _, self.mac = keys

    @staticmethod
    def open(raw, repository, epoch_key, what):
        """`raw`: the first 112 bytes or more; `epoch_key(domain, epoch)` gives the key. Checks the commitment."""
        header = parse_header(raw, repository, what)
        secret = class_secret(epoch_key(header.domain, header.epoch), header.domain, header.kind)
        keys = object_keys(secret, header.raw)
        commit(keys[1], raw[HEADER:START], what)
        return Envelope(what, header, keys)

    def head(self, number, raw):
        """Opens the head of a record: its first 72 bytes are enough."""
        what = f"{self.what}, record {number}"
        nonce = raw[:8]
        head = unseal(self.key, u32(2 * number) + nonce, b"", raw[8:72], what)
        if not same(MAC(self.mac, head)[:8], nonce):
            raise Refused(f"{what}: the nonce does not fit")
        sealed, plain, kind, codec = read_u(head, 32, 4), read_u(head, 36, 4), head[40], head[41]
        if head[42:44] != b"\0\0" or read_u(head, 44, 4) != number:
            raise Refused(f"{what}: flags or number")
        if kind not in (CHUNK, BODY, BUNDLE, TABLE, PADDING) or plain > LENGTH_MAX.get(kind, 64 << 20) or sealed < 16:
            raise Refused(f"{what}: type {kind}, {plain} bytes")
        return head, Head(head[:32], sealed, plain, kind, codec, number)

    def record(self, number, raw):
        """Opens a record at the beginning of `raw`: its head and the body as it was sealed."""
        raw_head, head = self.head(number, raw)
        end = 72 + head.sealed
        if len(raw) < end:
            raise Refused(f"{self.what}, record {number}: ends too early")
        what = f"{self.what}, record {number}"
        body = unseal(self.key, u32(2 * number + 1) + raw[:8], raw_head, bytes(raw[72:end]), what)
        if head.type != CHUNK and not same(MAC(self.mac, body), head.id):
            raise Refused(f"{what}: the id does not fit")
        if head.type in (TABLE, PADDING) and (head.codec or head.plain != len(body)):
            raise Refused(f"{what}: length")
        if head.type == PADDING and body.count(0) != len(body):
            raise Refused(f"{what}: padding that is not zero")
        return head, body

    def records(self, raw, end):
        """All records from the header to `end`, in order, with their offsets."""
        offset = START
        number = 0
        view = memoryview(raw)
        while offset < end:
            if number >= RECORDS_MAX:
                raise Refused(f"{self.what}: too many records")
            head, body = self.record(number, view[offset:end])
            yield offset, head, body
            offset += 72 + head.sealed
            number += 1

    def seal_record(self, number, kind, codec, plain, body, id=None):
        """The opposite of `record`, for test vectors."""
        head = (id or MAC(self.mac, body)) + u32(len(body) + 16) + u32(plain) + bytes([kind, codec, 0, 0]) + u32(number)
        nonce = MAC(self.mac, head)[:8]
        return (
            nonce
            + seal(self.key, u32(2 * number) + nonce, b"", head)
            + seal(self.key, u32(2 * number + 1) + nonce, head, body)
        )


def open_body(raw, repository, epoch_key, what):
    """The decoded body of an envelope that is no pack, without its checksum, and its header."""
    envelope = Envelope.open(raw, repository, epoch_key, what)
    if envelope.header.kind <= 2:
        raise Refused(f"{what}: a pack")
    found = list(envelope.records(raw, len(raw)))
    if [head.type for _, head, _ in found] != [BODY, PADDING]:
        raise Refused(f"{what}: other records than a body and padding")
    _, head, body = found[0]
    if head.codec or head.plain != len(body):
        raise Refused(f"{what}: a body that is not raw")
    return body, envelope.header
