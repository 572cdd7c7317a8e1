"""Makes etcd's snapshot.db of the table `rows` of a snapshot, from docs/format.md section 10 and bbolt's file format.

python -m holdfast_reader.etcd ROWS SNAPSHOT_DB
"""

import hashlib
import struct
import sys

LEAF, BRANCH, META, FREELIST = 2, 1, 4, 16


class Parts:
    def __init__(self, data):
        self.data, self.at = data, 0

    def varint(self):
        number = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    def part(self):
        size = self.varint()
        part = self.data[self.at : self.at + size]
        if len(part) != size:
            raise ValueError("a part ends early")
        self.at += size
        return part


def rows(table):
    begin, count, magic = struct.unpack("<QQ8s", table[-24:])
    if magic != b"hftable1":
        raise ValueError("no table")
    found, parts, last = [], Parts(table[:begin]), None
    while parts.at < begin:
        key, value = parts.part(), parts.part()
        if last is not None and last >= key:
            raise ValueError("keys do not rise")
        last = key
        found.append((key, value))
    if len(found) != count:
        raise ValueError("rows are missing")
    return found


class Database:
    """A bbolt file that is written from front to back: leaves, then the branches above them."""

    def __init__(self, page_size):
        self.page_size, self.pages = page_size, [bytes(page_size)] * 3

    def page(self, flags, elements):
        """elements: (first word of a leaf or page of a branch, key, value)."""
        number, data, heads = len(self.pages), b"", b""
        for n, (word, key, value) in enumerate(elements):
            at = (len(elements) - n) * 16 + len(data)
            if flags & LEAF:
                heads += struct.pack("<IIII", word, at, len(key), len(value))
            else:
                heads += struct.pack("<IIQ", at, len(key), word)
            data += key + value
        size = 16 + len(heads) + len(data)
        count = max(1, -(-size // self.page_size))
        body = struct.pack("<QHHI", number, flags, len(elements), count - 1) + heads + data
        body = body.ljust(count * self.page_size, b"\0")
        self.pages += [body[n * self.page_size : (n + 1) * self.page_size] for n in range(count)]
        return number

    def level(self, flags, elements):
        made, held, size = [], [], 16
        for element in elements:
            more = 16 + len(element[1]) + len(element[2])
            if size + more > self.page_size and len(held) >= (1 if flags & LEAF else 3):
                # A branch has two children at least: its last one goes on into the next.
                moved = [] if flags & LEAF else [held.pop()]
                made.append((self.page(flags, held), held[0][1], b""))
                held, size = moved, 16 + sum(16 + len(part[1]) for part in moved)
            held.append(element)
            size += more
        if held or not made:
            made.append((self.page(flags, held), held[0][1] if held else b"", b""))
        return made

    def tree(self, pairs):
        made = self.level(LEAF, pairs)
        while len(made) > 1:
            made = self.level(BRANCH, made)
        return made[0][0]

    def finish(self, buckets):
        root = self.tree([(1, name, struct.pack("<QQ", self.tree(pairs), 0)) for name, pairs in buckets])
        for number in (0, 1):
            meta = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, self.page_size, 0, root, 0, 2, len(self.pages), number)
            check = 0xCBF29CE484222325
            for byte in meta:
                check = (check ^ byte) * 0x100000001B3 & (1 << 64) - 1
            page = struct.pack("<QHHI", number, META, 0, 0) + meta + struct.pack("<Q", check)
            self.pages[number] = page.ljust(self.page_size, b"\0")
        self.pages[2] = struct.pack("<QHHI", 2, FREELIST, 0, 0).ljust(self.page_size, b"\0")
        return b"".join(self.pages)


def main(source, target):
    with open(source, "rb") as file:
        (first, size), *others = rows(file.read())
    if first:
        raise ValueError("the first row has a key")
    buckets = []
    for key, value in others:
        name, inner = key.split(b"\0", 1)
        if not inner:
            buckets.append((name, []))
        elif buckets and buckets[-1][0] == name:
            buckets[-1][1].append((0, inner, value))
        else:
            raise ValueError("a row outside of its bucket")
    file = Database(struct.unpack("<Q", size)[0]).finish(buckets)
    with open(target, "xb") as out:
        out.write(file + hashlib.sha256(file).digest())


if __name__ == "__main__":
    main(*sys.argv[1:])
