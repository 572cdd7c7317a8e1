"""A region in a folder (sections 2 and 9): its objects' keys, their bytes, its mark."""

import os
import re
from collections import OrderedDict
from pathlib import Path

from . import shapes
from .cbor import decode
from .crypto import H
from .errors import Damaged, Missing, Refused

OBJECT_MAX = 64 << 20
_HEX32, _HEX64, _N8, _SUFFIX = "[0-9a-f]{32}", "[0-9a-f]{64}", "[0-9]{8}", r"(\.[1-9][0-9]*)?"
#: What may lie at which key.
KEYS = {
    "region": re.compile("region"),
    "slot": re.compile(f"keys/{_HEX32}"),
    "config": re.compile(f"config/{_N8}{_SUFFIX}"),
    "pack": re.compile(f"packs/([0-9a-f]{{2}})/\\1[0-9a-f]{{62}}"),
    "index": re.compile(f"index/{_HEX64}"),
    "snapshot": re.compile(f"snapshots/{_HEX32}"),
    "session": re.compile(f"sessions/{_HEX32}"),
    "forgotten": re.compile(f"forgotten/{_HEX32}"),
    "hold": re.compile(f"holds/{_HEX32}"),
    "release": re.compile(f"holds/{_HEX32}\\.release"),
    "begin": re.compile(f"epochs/{_N8}/begin{_SUFFIX}"),
    "run": re.compile(f"runs/{_HEX32}"),
    "tags": re.compile(f"tags/{_HEX32}"),
    "end": re.compile(f"epochs/{_N8}/end{_SUFFIX}"),
}


def sort_of(key):
    """The sort of object a key is for; None for what is no key of the format."""
    return next((sort for sort, pattern in KEYS.items() if pattern.fullmatch(key)), None)


def checked(raw, what):
    """The bytes before the checksum, and the checksum: the object's digest (section 2)."""
    if len(raw) < 32 or H(raw[:-32]) != raw[-32:]:
        raise Damaged(f"{what}: the checksum does not fit")
    return raw[:-32], raw[-32:]


class Region:
    """The objects in a folder. Packs are read in pieces, everything else whole."""

    def __init__(self, folder):
        self.root = Path(folder)
        self._open = OrderedDict()
        body, _ = checked(self.read("region"), "region")
        mark = decode(body, shapes.REGION, "region")
        if mark[0] != 1:
            raise Refused(f"region: format version {mark[0]}")
        self.repository, self.id = mark[1], mark[2]

    def keys(self, sort=None):
        """All keys, or those of one sort, in order."""
        found = []
        for folder, _, names in os.walk(self.root):
            inside = os.path.relpath(folder, self.root)
            found += [name if inside == "." else f"{inside}/{name}" for name in names]
        return sorted(key for key in found if sort is None or sort_of(key) == sort)

    def read(self, key):
        """The whole object."""
        try:
            with open(self.root / key, "rb") as file:
                if os.fstat(file.fileno()).st_size > OBJECT_MAX:
                    raise Refused(f"{key}: larger than 64 MiB")
                return file.read()
        except FileNotFoundError:
            raise Missing(f"{key}: not there") from None

    def piece(self, key, offset, length):
        """A part of an object; files stay open for a while."""
        if key not in self._open:
            if len(self._open) >= 64:
                os.close(self._open.popitem(last=False)[1])
            try:
                self._open[key] = os.open(self.root / key, os.O_RDONLY)
            except FileNotFoundError:
                raise Missing(f"{key}: not there") from None
        self._open.move_to_end(key)
        data = os.pread(self._open[key], length, offset)
        if len(data) != length:
            raise Damaged(f"{key}: ends before {offset + length}")
        return data
