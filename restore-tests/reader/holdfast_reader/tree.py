"""Trees: section 6. Pages, entries, chunk lists, extended attributes."""

from . import shapes
from .cbor import decode
from .chunks import DATA, TREE
from .crypto import read_u
from .errors import Refused

FILE, DIRECTORY, SYMLINK, FIFO, SOCKET, CHARACTER, BLOCK = range(7)
HOLE = bytes(32)
LEVEL_MAX, DEPTH_MAX = 8, 4096


def good_name(name):
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name and len(name) <= 255


class Tree:
    """What one snapshot's tree leads to. `seen` counts which forms occurred."""

    def __init__(self, chunks, domain):
        self.chunks, self.domain = chunks, domain
        self.seen = {}

    def _count(self, what):
        self.seen[what] = self.seen.get(what, 0) + 1

    def _page(self, id, shape, what):
        return decode(self.chunks.get(self.domain, id, TREE, what), shape, what)

    def children(self, entry, what):
        """A directory's entries in order of their names."""
        if 15 not in entry:
            return
        last = b""
        for child in self._below(entry[15], None, what):
            if not good_name(child[0]) or child[0] <= last:
                raise Refused(f"{what}: the name {child[0]!r} cannot be there")
            last = child[0]
            check_entry(child, what)
            yield child

    def _below(self, id, level, what):
        page = self.chunks.get(self.domain, id, TREE, what)
        found = read_page(page, what)
        if found[0] > LEVEL_MAX or (level is not None and found[0] != level):
            raise Refused(f"{what}: a page of level {found[0]}")
        self._count(f"tree page level {found[0]}")
        if found[0] == 0:
            yield from found[1]
            return
        for child in found[2]:
            count, first = 0, None
            for entry in self._below(child[0], found[0] - 1, what):
                first = entry[0] if count == 0 else first
                count += 1
                yield entry
            if count != child[2] or first != child[1]:
                raise Refused(f"{what}: a page has other entries than its parent says")

    def content(self, entry, what):
        """A file's chunks: (id, length); a hole has an id of zeros."""
        size = entry.get(11, 0)
        if 13 in entry:
            self._count("chunk list")
            items = self._items(entry[13])
        elif 14 in entry:
            self._count("chunk list out of line")
            items = self._list(entry[14][0], entry[14][1], what)
        else:
            items = [(HOLE, size)] if size and 12 not in entry else []
        total = 0
        for id, length in items:
            if id == HOLE:
                self._count("hole")
            total += length
            yield id, length
        if 12 not in entry and total != size:
            raise Refused(f"{what}: {total} bytes of content, {size} were said")

    @staticmethod
    def _items(raw):
        for at in range(0, len(raw), 40):
            yield raw[at : at + 32], read_u(raw, at + 32, 8)

    def _list(self, id, level, what):
        page = self._page(id, shapes.LIST_PAGE, what)
        if page[0] != level or level > LEVEL_MAX:
            raise Refused(f"{what}: a list page of level {page[0]}")
        self._count(f"list page level {level}")
        for item, length in self._items(page[1]):
            if level == 0:
                yield item, length
                continue
            covered = 0
            for below in self._list(item, level - 1, what):
                covered += below[1]
                yield below
            if covered != length:
                raise Refused(f"{what}: a list page covers {covered} bytes, {length} were said")

    def data(self, id, length, what):
        """The bytes of a chunk of a file."""
        plain = self.chunks.get(self.domain, id, DATA, what)
        if len(plain) != length:
            raise Refused(f"{what}: a chunk has {len(plain)} bytes, {length} were said")
        return plain

    def xattrs(self, entry, what):
        """[[name, value]], wherever they stand."""
        if 22 in entry:
            self._count("attributes out of line")
            return self._page(entry[22], shapes.XATTRS, what)
        if 19 in entry:
            self._count("attributes in line")
        return entry.get(19, [])


def read_page(page, what):
    """A tree page: leaves have key 1, inner pages key 2."""
    return decode(page, shapes.TREE_INNER if is_inner(page) else shapes.TREE_LEAF, what)


def is_inner(page):
    """Whether key 0, the level, is not 0 (deterministic CBOR: a2 00 <level>)."""
    return page[2:3] != b"\0"


def check_entry(entry, what):
    """What must hold between an entry's keys."""
    kind, keys = entry[1], entry.keys()
    if kind > BLOCK or entry[2] > 0o7777 or entry[6] > 999_999_999 or entry[8] > 999_999_999:
        raise Refused(f"{what}: type, mode or time of an entry")
    if len(keys & {12, 13, 14}) > 1 or len(keys & {19, 22}) > 1 or (10 in keys) != (20 in keys):
        raise Refused(f"{what}: keys of an entry that exclude each other")
    if 12 in keys and len(entry[12]) != entry.get(11):
        raise Refused(f"{what}: inline content of a wrong length")
    if (keys & {11, 12, 13, 14} and kind != FILE) or (15 in keys and kind != DIRECTORY):
        raise Refused(f"{what}: content of something that is no file")
    if (16 in keys) != (kind == SYMLINK) or (17 in keys) != (kind in (CHARACTER, BLOCK)):
        raise Refused(f"{what}: target or device number")
