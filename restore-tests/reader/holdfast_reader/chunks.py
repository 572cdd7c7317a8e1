"""Chunks: the index of section 5, packs and bundles of sections 3 and 4."""

from collections import OrderedDict
from struct import Struct

from .codec import RAW, ZSTD, decode
from .crypto import MAC, read_u, same
from .envelope import BUNDLE, CHUNK, START, Envelope
from .errors import Missing, Refused
from .objects import INDEX

ENTRY = Struct("<32sIIIIII")
PACK = Struct("<32sQB")
NO_BUNDLE = 0xFFFFFFFF
DATA, TREE = 1, 2
BUNDLES_KEPT, PACKS_KEPT, ENTRIES_MAX = 64, 256, 262_144


def pack_key(name):
    text = name.hex()
    return f"packs/{text[:2]}/{text}"


def parse_index(signed):
    """A segment's packs [(name, size, class)] and entries [(id, pack, offset, length, record, at, size)]."""
    packs = list(PACK.iter_unpack(signed.body[4]))
    entries = list(ENTRY.iter_unpack(signed.body[5]))
    if signed.body[3] != signed.domain or len(entries) > ENTRIES_MAX:
        raise Refused(f"{signed.key}: domain or number of entries")
    for earlier, entry in zip([None, *entries], entries):
        if entry[1] >= len(packs) or (earlier and earlier[0] > entry[0]):
            raise Refused(f"{signed.key}: entries out of order, or of no pack")
    return packs, entries


def parse_bundle(head, body, what):
    """A bundle's [(chunk id, offset, length)] and its decoded payload."""
    count = read_u(body, 0, 4)
    start = 4 + 36 * count
    if count > 65_536 or start > len(body) or head.codec not in (RAW, ZSTD):
        raise Refused(f"{what}: count or codec of a bundle")
    payload = decode(head.codec, body[start:], head.plain, what)
    members, at = [], 0
    for n in range(count):
        length = read_u(body, 36 + 36 * n, 4)
        members.append((body[4 + 36 * n : 36 + 36 * n], at, length))
        at += length
    if at != len(payload):
        raise Refused(f"{what}: lengths of a bundle")
    return members, payload


class Chunks:
    """All chunks that the index segments of a repository lead to."""

    def __init__(self, repository):
        self.repository = repository
        self.notes = []
        self.packs = []
        self.where = {}
        self._keys = {}
        self._open = OrderedDict()
        self._bundles = OrderedDict()
        for key in repository.region.keys("index"):
            try:
                self._add(*self._segment(key))
            except Refused as error:
                self.notes.append(str(error))

    def _segment(self, key):
        signed = self.repository.signed(key, {INDEX})
        return signed, *parse_index(signed)

    def _add(self, signed, packs, entries):
        base, domain = len(self.packs), signed.domain
        self.packs += packs
        for id, pack, *place in entries:
            self.where.setdefault((domain, id), []).append((base + pack, *place))

    def get(self, domain, id, kind, what):
        """A chunk's plaintext; its id was recomputed. Candidates are tried one after another."""
        reasons = []
        for pack, *place in self.where.get((domain, id), ()):
            name, _, of = self.packs[pack]
            if of != kind:
                continue
            try:
                return self._read(domain, id, name, of, *place)
            except Refused as error:
                reasons.append(str(error))
        raise Missing("; ".join([f"{what}: chunk {id.hex()} cannot be had", *reasons]))

    def _read(self, domain, id, name, kind, offset, length, number, at, size):
        if at == NO_BUNDLE:
            head, body = self._record(name, kind, domain, offset, length, number)
            if head.type != CHUNK or head.id != id or head.plain != size:
                raise Refused(f"{pack_key(name)}: record {number} is another")
            plain = decode(head.codec, body, head.plain, pack_key(name))
        else:
            plain = self._bundle(name, kind, domain, offset, length, number)[at : at + size]
        self.check(domain, id, plain, size, name)
        return plain

    def check(self, domain, id, plain, size, name):
        """Section 4: the id is recomputed before a byte is used, always."""
        if domain not in self._keys:
            self._keys[domain] = self.repository.keyring.chunk_key(domain)
        if len(plain) != size or not same(MAC(self._keys[domain], plain), id):
            raise Refused(f"{pack_key(name)}: a chunk's id does not fit its content")

    def _bundle(self, name, kind, domain, offset, length, number):
        """A bundle's payload; the last few are kept."""
        place = (name, offset)
        if place not in self._bundles:
            head, body = self._record(name, kind, domain, offset, length, number)
            if head.type != BUNDLE:
                raise Refused(f"{pack_key(name)}: record {number} is no bundle")
            if len(self._bundles) >= BUNDLES_KEPT:
                self._bundles.popitem(last=False)
            self._bundles[place] = parse_bundle(head, body, pack_key(name))[1]
        self._bundles.move_to_end(place)
        return self._bundles[place]

    def _record(self, name, kind, domain, offset, length, number):
        envelope = self._envelope(name, kind, domain)
        raw = self.repository.region.piece(pack_key(name), offset, length)
        head, body = envelope.record(number, raw)
        if len(raw) != 72 + head.sealed:
            raise Refused(f"{pack_key(name)}: record {number} has another length")
        return head, body

    def _envelope(self, name, kind, domain):
        """A pack's keys; those of the last few packs are kept."""
        if name not in self._open:
            key = pack_key(name)
            start = self.repository.region.piece(key, 0, START)
            envelope = Envelope.open(start, self.repository.region.repository, self.repository.keyring.epoch_key, key)
            if len(self._open) >= PACKS_KEPT:
                self._open.popitem(last=False)
            self._open[name] = envelope
        self._open.move_to_end(name)
        envelope = self._open[name]
        if envelope.header.kind != kind or envelope.header.domain != domain:
            raise Refused(f"{pack_key(name)}: kind or domain")
        return envelope
