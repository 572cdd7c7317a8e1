"""`--check`: opens every object of every kind, and walks every visible snapshot."""

import json
from collections import Counter

from .chunks import NO_BUNDLE, TREE, Chunks, pack_key, parse_bundle, parse_index
from .codec import NAMES, decode
from .crypto import H, read_u
from .envelope import BUNDLE, CHUNK, PADDING, TABLE, Envelope
from .errors import Damaged, Refused
from .keys import Slot
from .objects import BEGIN, END, FORGOTTEN, HOLD_KIND, INDEX, KINDS, MANIFEST, RELEASE, REPACK, RUN, SESSION, TAGS, TOMBSTONE
from .region import checked, sort_of
from .tree import DIRECTORY, HOLE, Tree, check_entry

SIGNED = {
    "index": {INDEX},
    "snapshot": {MANIFEST, TOMBSTONE, REPACK},
    "session": {SESSION},
    "forgotten": {FORGOTTEN},
    "hold": {HOLD_KIND},
    "release": {RELEASE},
    "begin": {BEGIN},
    "end": {END},
    "run": {RUN},
    "tags": {TAGS},
}


class Check:
    """One run over a repository; problems are collected, not raised."""

    def __init__(self, repository):
        self.repository = repository
        self.chunks = Chunks(repository)
        self.objects, self.codecs, self.forms = Counter(), Counter(), Counter()
        self.problems = []
        self.records = {}

    def run(self):
        keys = self.repository.region.keys()
        for key in keys:
            self._try(self._object, key)
        self._try(self._epochs, keys)
        for key in self.repository.region.keys("index"):
            self._try(self._index, key)
        snapshots, _ = self.repository.snapshots()
        for snapshot in snapshots:
            self._try(self._snapshot, snapshot)
        report = {
            "objects": self.objects,
            "codecs": self.codecs,
            "forms": self.forms,
            "visible": len(snapshots),
            "config": self.repository.chain[-1].number,
            "problems": self.problems,
        }
        print(json.dumps(report, indent=1, sort_keys=True))
        return 1 if self.problems else 0

    def _try(self, step, what):
        try:
            step(what)
        except Refused as error:
            self.problems.append(str(error))

    def _object(self, key):
        """By the sort its key says."""
        sort = sort_of(key)
        if sort in SIGNED:
            signed = self.repository.signed(key, SIGNED[sort])
            self.objects[KINDS[signed.kind][0]] += 1
        elif sort == "pack":
            self._pack(key)
        elif sort in ("region", "slot"):
            if sort == "slot":
                self.repository.keyring.check_slot(Slot(self.repository.region, key))
            self.objects[sort] += 1
        elif sort == "config":
            self._config(key)
        else:
            self.objects["not of the format"] += 1

    def _config(self, key):
        """Those of the chain were verified; of earlier ones the checksum says all that this slot can know."""
        checked(self.repository.region.read(key), key)
        if key in {config.what for config in self.repository.chain}:
            self.objects["config"] += 1
        elif int(key[7:15]) <= self.repository.slot.number:
            self.objects["config before the slot"] += 1
        else:
            raise Refused(f"{key}: does not belong to the chain")

    def _epochs(self, keys):
        """In order, because members may change by the owner's word only."""
        self.objects["epochs"] = sum(1 for _ in self.repository.epochs(keys))

    def _pack(self, key):
        """Name, every record, every chunk's id, table, padding."""
        raw = self.repository.region.read(key)
        if H(raw).hex() != key[9:]:
            raise Damaged(f"{key}: the name does not fit")
        envelope = Envelope.open(raw, self.repository.region.repository, self.repository.keyring.epoch_key, key)
        kind, domain = envelope.header.kind, envelope.header.domain
        if kind > 2:
            raise Refused(f"{key}: no pack")
        found = list(envelope.records(raw, len(raw) - 8))
        self._table(key, raw, found)
        name = bytes.fromhex(key[9:])
        places = self.records[name] = {}
        for offset, head, body in found[:-2]:
            place = (offset, head.sealed + 72, head.number)
            for id, at, plain in self._plain(key, head, body):
                self.chunks.check(domain, id, plain, len(plain), name)
                places[place + (NO_BUNDLE if at is None else at, id)] = len(plain)
        self.objects["tree pack" if kind == TREE else "data pack"] += 1

    def _plain(self, key, head, body):
        """(id, offset in the bundle, plaintext) of the chunks in a record."""
        if head.type == CHUNK:
            self.codecs[f"chunk {codec_name(head.codec)}"] += 1
            yield head.id, None, decode(head.codec, body, head.plain, key)
            return
        self.codecs[f"bundle {codec_name(head.codec)}"] += 1
        members, payload = parse_bundle(head, body, key)
        for id, at, length in members:
            yield id, at, payload[at : at + length]

    def _table(self, key, raw, found):
        """The end of a pack, and its size."""
        types = [head.type for _, head, _ in found]
        if types[-2:] != [PADDING, TABLE] or set(types[:-2]) - {CHUNK, BUNDLE}:
            raise Refused(f"{key}: records of types {sorted(set(types))}")
        if read_u(raw, len(raw) - 8, 8) != found[-1][0]:
            raise Refused(f"{key}: the table is elsewhere")
        expected = b"".join(o.to_bytes(8, "little") + h.number.to_bytes(4, "little") for o, h, _ in found[:-2])
        if found[-1][2] != expected:
            raise Refused(f"{key}: the table has other records")
        bare = len(raw) - found[-2][1].plain
        step = max(64 << 10, (1 << bare.bit_length() - 1) // 128)
        if len(raw) != -(-bare // step) * step:
            raise Refused(f"{key}: padded to {len(raw)} from {bare}")

    def _index(self, key):
        """Every entry must be true of the pack it names, if the pack is here and sound."""
        packs, entries = parse_index(self.repository.signed(key, {INDEX}))
        for name, size, _ in packs:
            path = self.repository.region.root / pack_key(name)
            if not path.exists() or path.stat().st_size != size:
                raise Refused(f"{key}: {pack_key(name)} is not there or has another size")
        for id, pack, offset, length, number, at, size in entries:
            places = self.records.get(packs[pack][0])
            if places is not None and places.get((offset, length, number, at, id)) != size:
                raise Refused(f"{key}: an entry is not true of {pack_key(packs[pack][0])}")

    def _snapshot(self, snapshot):
        """Everything a snapshot needs: tree pages and attributes are read, data chunks looked up."""
        tree = Tree(self.chunks, snapshot.body[17])
        check_entry(snapshot.body[7], snapshot.key)
        stack = [(b"/", snapshot.body[7])]
        while stack:
            path, entry = stack.pop()
            self._entry(tree, path, entry)
            if entry[1] == DIRECTORY:
                stack += [(path + b"/" + child[0], child) for child in tree.children(entry, path)]
        self.forms.update(tree.seen)

    def _entry(self, tree, path, entry):
        self.forms[f"type {entry[1]}"] += 1
        self.forms["inline"] += 12 in entry
        self.forms["linked"] += 10 in entry
        tree.xattrs(entry, path)
        for id, _ in tree.content(entry, path):
            if id != HOLE and (tree.domain, id) not in self.chunks.where:
                raise Refused(f"{path!r}: chunk {id.hex()} is in no index")


def codec_name(codec):
    return NAMES[codec] if codec < len(NAMES) else str(codec)
