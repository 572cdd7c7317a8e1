"""Signed objects: section 5, and which snapshots are visible: section 8."""

from dataclasses import dataclass

from . import shapes
from .cbor import decode, encode
from .crypto import H, read_u, signed_message, verify
from .envelope import open_body
from .errors import Damaged, Refused
from .keys import first_that_verifies
from .region import checked

WRITE, FORGET, PRUNE, VERIFY, HOLD, OWNER = 1, 2, 4, 8, 16, 32
INDEX, MANIFEST, TOMBSTONE, REPACK, SESSION, FORGOTTEN, HOLD_KIND, RELEASE, BEGIN, END, RUN = range(3, 14)
TAGS = 21
#: kind -> name, shape, role needed (None: judged by the caller)
KINDS = {
    INDEX: ("index segment", shapes.INDEX, WRITE),
    MANIFEST: ("manifest", shapes.MANIFEST, WRITE),
    TOMBSTONE: ("tombstone", shapes.TOMBSTONE, None),
    REPACK: ("repack record", shapes.REPACK, WRITE),
    SESSION: ("session", shapes.SESSION, WRITE),
    FORGOTTEN: ("forgotten", shapes.FORGOTTEN, FORGET),
    HOLD_KIND: ("hold", shapes.HOLD, HOLD),
    RELEASE: ("hold release", shapes.RELEASE, HOLD),
    BEGIN: ("epoch begin", shapes.BEGIN, PRUNE),
    END: ("epoch end", shapes.END, PRUNE),
    RUN: ("run", shapes.RUN, WRITE),
    TAGS: ("change of tags", shapes.TAGS, WRITE),
}


@dataclass
class Signed:
    """A signed object that verified."""

    key: str
    kind: int
    body: dict
    writer: bytes
    roles: int
    digest: bytes
    domain: int


class Repository:
    """An opened repository in one region."""

    def __init__(self, region, slot, chain, keyring):
        self.region, self.slot, self.chain, self.keyring = region, slot, chain, keyring

    def signed(self, key, kinds):
        """Opens a signed object: judgement, shape, signature, role."""
        raw = self.region.read(key)
        if key.startswith("index/"):
            body, digest = raw, H(raw)
            if digest.hex() != key[6:]:
                raise Damaged(f"{key}: the name does not fit")
        else:
            body, digest = checked(raw, key)
        if len(raw) % 4096:
            raise Refused(f"{key}: padded wrongly")
        plain, header = open_body(body, self.region.repository, self.keyring.epoch_key, key)
        if header.kind not in kinds:
            raise Refused(f"{key}: kind {header.kind}")
        return self.judge(key, header, plain, digest)

    def judge(self, key, header, plain, digest):
        """The signature and the writer's role."""
        if len(plain) < 81 or plain[-81] != 1:
            raise Refused(f"{key}: no Ed25519 signature")
        name, shape, role = KINDS[header.kind]
        writer = self.keyring.writers.get(plain[-80:-64])
        if writer is None:
            raise Refused(f"{key}: signed by nobody of the keyring")
        signed_key = "" if header.kind == INDEX else without_suffix(key)
        message = signed_message(header.kind, header.repository, signed_key, H(plain[:-64]))
        verify(writer[1], plain[-64:], message, key)
        body = decode(plain[:-81], shape, f"{key} ({name})")
        if role is not None and not writer[2] & role:
            raise Refused(f"{key}: its writer has not the role")
        found = Signed(key, header.kind, body, writer[0], writer[2], digest, header.domain)
        self.check_content(found)
        return found

    def check_content(self, signed):
        """What the body says about itself must fit the key; freshness must fit the chain."""
        parts = signed.key.split("/")
        kind, body = signed.kind, signed.body
        if kind in (MANIFEST, TOMBSTONE, REPACK, SESSION, FORGOTTEN, HOLD_KIND, RELEASE, RUN, TAGS):
            if body[1].hex() != parts[1].removesuffix(".release"):
                raise Refused(f"{signed.key}: made for another id")
        if kind in (BEGIN, END) and f"{body[1]:08d}" != parts[1]:
            raise Refused(f"{signed.key}: made for another number")
        if kind == MANIFEST:
            self.check_manifest(signed)
        if kind == TOMBSTONE and not signed.roles & PRUNE:
            session = self.signed(f"sessions/{parts[1]}", {SESSION})
            if session.writer != signed.writer:
                raise Refused(f"{signed.key}: a tombstone by another writer")
        self.check_freshness(signed)

    def check_manifest(self, signed):
        """The content digest, and whether its writer may write this source."""
        sources = self.keyring.writers[signed.writer][4]
        if sources and signed.body[2][1] not in sources:
            raise Refused(f"{signed.key}: its writer may not write this source")
        if H(encode(signed.body[7])) != signed.body[22]:
            raise Refused(f"{signed.key}: the content digest does not fit")
        if len(signed.body[10]) > 1000 or len(signed.body[20]) > 64:
            raise Refused(f"{signed.key}: too many errors or heads")

    def check_freshness(self, signed):
        """A writer that knew a later or another configuration shows that this region was rolled back."""
        number, digest = signed.body[0][0], signed.body[0][1]
        if number > self.chain[-1].number:
            raise Refused(f"{signed.key}: knows config {number}, the last one here is {self.chain[-1].number}")
        known = next((config for config in self.chain if config.number == number), None)
        if known and known.digest != digest:
            raise Refused(f"{signed.key}: knows another config {number}")

    def epochs(self, keys):
        """All epochs, begin and end, in order; members may change by the owner's word only."""
        members, number = None, 1
        while any(key.startswith(f"epochs/{number:08d}/") for key in keys):
            begin = self.epoch_part(keys, number, "begin", BEGIN)
            if begin.body[2] != members and not begin.roles & OWNER:
                raise Refused(f"{begin.key}: members changed without the role owner")
            members = begin.body[2]
            end = None
            if any(key.startswith(f"epochs/{number:08d}/end") for key in keys):
                end = self.epoch_part(keys, number, "end", END)
                if end.body[2] != begin.digest:
                    raise Refused(f"{end.key}: ends another begin")
            yield begin, end
            number += 1

    def epoch_part(self, keys, number, part, kind):
        return first_that_verifies(keys, f"epochs/{number:08d}/{part}", lambda key: self.signed(key, {kind}))

    def snapshots(self):
        """Visible manifests, oldest first, and what is reported beside."""
        found, notes = [], []
        for key in self.region.keys("snapshot"):
            try:
                signed = self.signed(key, {MANIFEST, TOMBSTONE, REPACK})
                if signed.kind == MANIFEST and not self.forgotten(signed, notes):
                    found.append(signed)
            except Refused as error:
                notes.append(str(error))
        return sorted(found, key=lambda signed: signed.body[5]), notes

    def forgotten(self, manifest, notes):
        """Whether a marker that verifies says that this snapshot is not wanted."""
        key = f"forgotten/{manifest.body[1].hex()}"
        if not (self.region.root / key).exists():
            return False
        try:
            self.signed(key, {FORGOTTEN})
            return True
        except Refused as error:
            notes.append(str(error))
            return False


def without_suffix(key):
    """`epochs/00000003/begin.1` -> `epochs/00000003/begin`."""
    return key.split(".")[0] if key.startswith("epochs/") else key

