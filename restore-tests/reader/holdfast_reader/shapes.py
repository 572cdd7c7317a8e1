"""The maps of sections 2, 5, 6 and 7, key by key."""

from .cbor import fixed, octets, record, several, sint, text, uint

ID, HASH, U8, U16, U32, U64 = octets(16), octets(32), uint(8), uint(16), uint(32), uint()
TIME = sint

REGION = record({0: U64, 1: ID, 2: ID, 3: TIME})

SLOT = record({0: octets(), 1: HASH, 2: octets()})
SLOT_HEAD = record({0: U64, 1: ID, 2: ID, 3: U8, 5: HASH}, {4: fixed(U32, U32, U32), 6: octets()})
ANCHOR = record({0: HASH, 1: U32, 2: HASH})

CONFIG = record({0: octets(), 1: HASH, 2: octets(), 3: octets(64)})
CONFIG_HEAD = record(
    {
        0: U64,
        1: ID,
        2: U32,
        3: HASH,
        4: HASH,
        5: record({0: several(text), 1: several(text), 2: several(text)}),
        6: U8,
        7: several(record({0: U8, 1: U8, 2: U64, 3: U64, 4: U64, 5: U64, 6: U64})),
        8: several(record({0: ID, 1: octets(1120), 2: HASH, 3: octets(48)})),
        9: TIME,
    }
)
KEYRING = record(
    {
        0: HASH,
        1: several(record({0: U32, 1: several(record({0: U32, 1: HASH, 2: TIME, 3: U8}))})),
        2: several(record({0: ID, 1: U8, 2: text, 3: octets(1216), 4: TIME}, {5: HASH})),
        3: several(record({0: ID, 1: HASH, 2: U32, 3: several(U32), 4: several(text), 5: text, 6: TIME})),
        4: HASH,
        5: several(record({0: ID, 1: HASH})),
    }
)

FRESH = record({0: U32, 1: HASH, 2: U32})
ROOTS = several(fixed(ID, HASH, TIME))
MEMBERS = several(fixed(ID, text))

ENTRY = record(
    {0: octets(), 1: U8, 2: U16, 3: U32, 4: U32, 5: sint, 6: U32, 7: sint, 8: U32, 9: U64},
    {
        10: U64,
        11: U64,
        12: octets(),
        13: octets(multiple=40),
        14: record({0: HASH, 1: U8}),
        15: HASH,
        16: octets(),
        17: U32,
        18: U32,
        19: several(fixed(octets(), octets())),
        20: U64,
        21: U64,
        22: HASH,
    },
)
XATTRS = several(fixed(octets(), octets()))
TREE_LEAF = record({0: U8, 1: several(ENTRY)})
TREE_INNER = record({0: U8, 2: several(record({0: HASH, 1: octets(), 2: U64}))})
LIST_PAGE = record({0: U8, 1: octets(multiple=40)})

MANIFEST = record(
    {
        0: FRESH,
        1: ID,
        2: record({0: text, 1: text, 2: text, 3: several(octets())}),
        3: U8,
        5: TIME,
        6: TIME,
        7: ENTRY,
        8: record({k: U64 for k in range(8)}),
        9: record({k: U64 for k in range(5)}),
        10: several(record({0: octets(), 1: text, 2: text})),
        11: U64,
        12: U8,
        16: U32,
        17: U32,
        18: U64,
        19: HASH,
        20: several(fixed(ID, HASH)),
        21: text,
        22: HASH,
        23: several(text),
        24: several(fixed(text, text)),
        26: ID,
    },
    {4: ID, 13: text, 14: text, 15: U64, 25: U64},
)
TOMBSTONE = record({0: FRESH, 1: ID, 2: TIME, 3: text})
REPACK = record({0: FRESH, 1: ID, 2: TIME, 3: several(fixed(HASH, several(HASH)))})
SESSION = record({0: FRESH, 1: ID, 2: ID, 3: TIME, 4: text, 5: text, 6: U32, 7: several(ID)}, {8: ID})
FORGOTTEN = record({0: FRESH, 1: ID, 2: HASH, 3: TIME, 4: text})
HOLD = record({0: FRESH, 1: ID, 2: ID, 3: TIME, 4: text}, {5: TIME})
RELEASE = record({0: FRESH, 1: ID, 2: TIME})
TAGS = record({0: FRESH, 1: ID, 2: ID, 3: TIME, 4: several(text), 5: several(text)})
BEGIN = record({0: FRESH, 1: U32, 2: MEMBERS, 3: octets(multiple=32), 4: ROOTS, 5: TIME})
END = record(
    {0: FRESH, 1: U32, 2: HASH, 3: octets(multiple=32), 4: ROOTS, 5: TIME, 6: octets(multiple=16)},
    {7: octets(multiple=32)},
)
RUN = record(
    {
        0: FRESH,
        1: ID,
        2: text,
        5: text,
        6: TIME,
        7: TIME,
        8: U8,
        9: text,
        10: several(ID),
        11: several(fixed(text, U64)),
        12: several(text),
        13: several(fixed(text, text)),
        14: several(record({0: octets(), 1: text, 2: text})),
        15: U64,
        16: text,
    },
    {3: text, 4: text, 17: text, 18: text},
)
INDEX = record({0: FRESH, 1: ID, 2: U32, 3: U32, 4: octets(multiple=41), 5: octets(multiple=56)})
