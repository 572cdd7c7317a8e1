"""Bech32m (BIP 350), for recovery keys (section 7)."""

from .errors import WrongKey

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_CONSTANT = 0x2BC830A3


def _polymod(values):
    generator = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for i in range(5):
            if top >> i & 1:
                check ^= generator[i]
    return check


def _expand(prefix):
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def _regroup(values, size, to, pad):
    acc = bits = 0
    out = []
    for value in values:
        acc = acc << size | value
        bits += size
        while bits >= to:
            bits -= to
            out.append(acc >> bits & ((1 << to) - 1))
    left = acc & ((1 << bits) - 1)
    if pad and bits:
        out.append(left << (to - bits))
    elif not pad and (bits >= size or left):
        raise WrongKey("recovery key: padding")
    return out


def encode(prefix, data):
    values = _regroup(data, 8, 5, True)
    check = _polymod(_expand(prefix) + values + [0] * 6) ^ _CONSTANT
    values += [check >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(_ALPHABET[v] for v in values)


def decode(prefix, text):
    if text != text.lower() and text != text.upper():
        raise WrongKey("recovery key: mixed case")
    text = text.lower()
    found, _, rest = text.rpartition("1")
    if found != prefix:
        raise WrongKey(f"recovery key: does not begin with {prefix}1")
    if len(rest) < 6 or any(c not in _ALPHABET for c in rest):
        raise WrongKey("recovery key: a character that cannot be in it")
    values = [_ALPHABET.index(c) for c in rest]
    if _polymod(_expand(prefix) + values) != _CONSTANT:
        raise WrongKey("recovery key: the check sum does not fit, a character is wrong")
    return bytes(_regroup(values[:-6], 5, 8, False))
