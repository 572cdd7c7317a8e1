"""Slots, the chain of configurations, the keyring: section 7."""

import itertools
import re

from . import bech32m, shapes
from .cbor import decode
from .crypto import (
    H,
    KD,
    ZERO_NONCE,
    argon2id,
    commit,
    signed_message,
    signing_public,
    u32,
    unseal,
    verify,
    xwing_decapsulate,
)
from .errors import Missing, Refused, WrongKey
from .region import checked

PASSPHRASE, KEY_FILE, RECOVERY = 1, 2, 3
KIND_CONFIG = 32
FEATURES = {"base1", "planes1"}


class Secret:
    """What the user has: the kind of slot it is for, and the bytes."""

    def __init__(self, kind, value):
        self.kind = kind
        self.value = value

    @staticmethod
    def passphrase(data):
        """The content of a passphrase file without one line end."""
        return Secret(PASSPHRASE, re.sub(rb"\r?\n\Z", b"", data))

    @staticmethod
    def key_file(data):
        if len(data) != 32:
            raise WrongKey(f"a key file has 32 bytes, this one has {len(data)}")
        return Secret(KEY_FILE, data)

    @staticmethod
    def recovery(data):
        value = bech32m.decode("hfkey", data.decode("ascii", "replace").strip())
        if len(value) != 32:
            raise WrongKey("recovery key: not 32 bytes")
        return Secret(RECOVERY, value)

    def seed(self, head, what):
        """The slot's seed; `head` is decoded."""
        if self.kind != PASSPHRASE:
            if 4 in head or 6 in head:
                raise Refused(f"{what}: parameters that do not belong to kind {self.kind}")
            return self.value
        memory, passes, lanes = head.get(4) or (0, 0, 0)
        if not (8 * lanes <= memory <= 1 << 20 and 1 <= passes <= 16 and 1 <= lanes <= 16):
            raise Refused(f"{what}: Argon2 parameters {memory}, {passes}, {lanes}")
        return argon2id(self.value, head[5], memory, passes, lanes)


def slot_keys(seed, raw_head):
    """Anchor key, commitment and X-Wing seed of a slot."""
    out = KD("slot", seed + H(raw_head), 96)
    return out[:32], out[32:64], out[64:]


class Slot:
    """One `keys/` object and, once opened, its anchor and its X-Wing seed."""

    def __init__(self, region, key):
        body, self.object = checked(region.read(key), key)
        slot = decode(body, shapes.SLOT, key)
        self.what, self.raw_head, self.commitment, self.box = key, slot[0], slot[1], slot[2]
        self.head = decode(self.raw_head, shapes.SLOT_HEAD, key)
        self.id, self.kind = self.head[2], self.head[3]
        if self.head[0] != 1 or self.head[1] != region.repository or key != f"keys/{self.id.hex()}":
            raise Refused(f"{key}: version, repository or id do not fit")

    def open(self, secret):
        anchor_key, commitment, self.xwing = slot_keys(secret.seed(self.head, self.what), self.raw_head)
        commit(commitment, self.commitment, self.what)
        plain = unseal(anchor_key, ZERO_NONCE, H(self.raw_head), self.box, self.what)
        anchor = decode(plain, shapes.ANCHOR, f"{self.what}, anchor")
        self.owner, self.number, self.digest = anchor[0], anchor[1], anchor[2]


def open_slots(region, secret):
    """The slots that the secret opens: removed and added again, one secret has several."""
    found, reasons = [], []
    for key in region.keys("slot"):
        try:
            slot = Slot(region, key)
            if slot.kind == secret.kind:
                slot.open(secret)
                found.append(slot)
        except WrongKey:
            pass
        except Refused as error:
            reasons.append(str(error))
    if not found:
        raise WrongKey("; ".join(["no slot opens with this secret", *reasons]))
    return found


class Config:
    """One verified configuration."""

    def __init__(self, raw, key, number, previous, owner, repository):
        """`key` may have a suffix, the signed name has none."""
        body, self.digest = checked(raw, key)
        config = decode(body, shapes.CONFIG, key)
        self.raw_head, self.commitment, self.sealed = config[0], config[1], config[2]
        self.head = decode(self.raw_head, shapes.CONFIG_HEAD, key)
        head = self.head
        if head[0] != 1 or head[1] != repository or head[2] != number or head[3] != previous:
            raise Refused(f"{key}: version, repository, number or previous digest do not fit")
        name = f"config/{number:08d}"
        digest = H(self.raw_head + self.commitment + self.sealed)
        verify(owner, config[3], signed_message(KIND_CONFIG, repository, name, digest), key)
        self.what, self.number, self.next_owner = key, number, head[4]

    def grant(self, slot, xwing):
        """G, for a slot that is listed."""
        listed = next((entry for entry in self.head[8] if entry[0] == slot), None)
        if listed is None:
            raise WrongKey(f"{self.what}: the slot was removed")
        material = xwing_decapsulate(xwing, listed[1]) + self.head[1] + u32(self.number) + slot
        out = KD("wrap", material, 64)
        commit(out[32:], listed[2], f"{self.what}, slot")
        return unseal(out[:32], ZERO_NONCE, b"", listed[3], f"{self.what}, slot")

    def keyring(self, grant):
        out = KD("ring", grant + H(self.raw_head), 64)
        commit(out[32:], self.commitment, self.what)
        plain = unseal(out[:32], ZERO_NONCE, b"", self.sealed, self.what)
        ring = decode(plain, shapes.KEYRING, f"{self.what}, keyring")
        if signing_public(ring[4]) != self.next_owner:
            raise Refused(f"{self.what}: the keyring has another owner key")
        return Keyring(ring)


class Keyring:
    """What the repository's keys are."""

    def __init__(self, ring):
        self.id_root = ring[0]
        self.slots = {slot[0]: slot.get(5) for slot in ring[2]}
        self.epochs = {(d[0], e[0]): e[1] for d in ring[1] for e in d[1]}
        self.writers = {writer[0]: writer for writer in ring[3]}
        for id, writer in self.writers.items():
            if H(writer[1])[:16] != id:
                raise Refused("keyring: a writer's id does not fit its key")

    def check_slot(self, slot):
        """Slots have no signature: the keyring names the object of each that it lists."""
        if self.slots.get(slot.id) not in (None, slot.object):
            raise Refused(f"{slot.what}: another slot than the keyring lists")

    def epoch_key(self, domain, epoch):
        try:
            return self.epochs[domain, epoch]
        except KeyError:
            raise WrongKey(f"no key for domain {domain}, key epoch {epoch}") from None

    def chunk_key(self, domain):
        return KD("chunk id", self.id_root + u32(domain), 32)


def series(keys, name):
    """The keys a numbered object may have: without suffix, then `.1` to `.15`, up to the first that is missing."""
    wanted = [name, *(f"{name}.{suffix}" for suffix in range(1, 16))]
    return itertools.takewhile(set(keys).__contains__, wanted)


def first_that_verifies(keys, name, make):
    """What `make(key)` makes of the first key of a series that it does not refuse."""
    reasons = []
    for key in series(keys, name):
        try:
            return make(key)
        except Refused as error:
            reasons.append(str(error))
    if reasons:
        raise Refused("; ".join(reasons))
    raise Missing(f"{name}: not there")


def walk(region, slot):
    """The configurations from the slot's anchor to the one in force. What does not verify ends the chain."""
    keys = region.keys("config")
    number, digest, owner = slot.number + 1, slot.digest, slot.owner
    chain, end = [], None
    while end is None:

        def make(key):
            return Config(region.read(key), key, number, digest, owner, region.repository)

        try:
            config = first_that_verifies(keys, f"config/{number:08d}", make)
            chain.append(config)
            number, digest, owner = number + 1, config.digest, config.next_owner
        except Refused as error:
            end = error
    if not chain:
        raise end
    return chain


def open_repository(region, secret):
    """Opens with a secret: the chain of configurations and the keyring in force."""
    refused = None
    for slot in open_slots(region, secret):
        try:
            return open_with(region, slot)
        except WrongKey as error:
            refused = error
    raise refused


def open_with(region, slot):
    chain = walk(region, slot)
    last = chain[-1]
    unknown = set(last.head[5][0]) - FEATURES
    if unknown or last.head[6] != 1:
        raise Refused(f"needs a newer program: {sorted(unknown)}, suite {last.head[6]}")
    keyring = last.keyring(last.grant(slot.id, slot.xwing))
    keyring.check_slot(slot)
    return slot, chain, keyring
