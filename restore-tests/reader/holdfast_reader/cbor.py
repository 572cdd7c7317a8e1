"""Deterministic CBOR (section 1) and the shapes that section 2, 5, 6 and 7 give to maps.

A shape is a function that takes a value and a name for it, and raises `Refused`. Depth is bounded by the shapes.
"""

import cbor2

from .errors import Refused


def encode(value):
    return cbor2.dumps(value, canonical=True)


def decode(data, shape, what):
    """Decodes, checks the shape, encodes again and refuses what differs."""
    try:
        value = cbor2.loads(data)
    except (cbor2.CBORError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise Refused(f"{what}: no CBOR: {error}") from None
    shape(value, what)
    if encode(value) != data:
        raise Refused(f"{what}: CBOR that is not deterministic")
    return value


def uint(bits=64):
    def check(value, what):
        if type(value) is not int or not 0 <= value < 1 << bits:
            raise Refused(f"{what}: no unsigned integer of {bits} bits")

    return check


def sint(value, what):
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise Refused(f"{what}: no signed integer of 64 bits")


def text(value, what):
    if type(value) is not str:
        raise Refused(f"{what}: no text")


def octets(length=None, multiple=None):
    def check(value, what):
        if type(value) is not bytes:
            raise Refused(f"{what}: no byte string")
        if length is not None and len(value) != length or multiple is not None and len(value) % multiple:
            raise Refused(f"{what}: a byte string of {len(value)} bytes")

    return check


def several(shape):
    def check(value, what):
        if type(value) is not list:
            raise Refused(f"{what}: no array")
        for item in value:
            shape(item, what)

    return check


def fixed(*shapes):
    """An array with one shape for each place."""

    def check(value, what):
        if type(value) is not list or len(value) != len(shapes):
            raise Refused(f"{what}: no array of {len(shapes)}")
        for item, shape in zip(value, shapes):
            shape(item, what)

    return check


def record(needed, optional=None):
    """A map with exactly these keys; an unknown key is refused."""
    shapes = needed | (optional or {})

    def check(value, what):
        if type(value) is not dict:
            raise Refused(f"{what}: no map")
        for key, item in value.items():
            if type(key) is not int or key not in shapes:
                raise Refused(f"{what}: unknown key {key!r}")
            shapes[key](item, f"{what}.{key}")
        for key in needed:
            if key not in value:
                raise Refused(f"{what}: key {key} is missing")

    return check
