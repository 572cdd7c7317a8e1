"""The codecs of section 4."""

from functools import lru_cache

import zstandard

from .crypto import read_u
from .errors import Refused

RAW, ZSTD, BF16, F16, F32, PLANES = range(6)
NAMES = ["raw", "zstd", "bf16", "f16", "f32", "planes"]
_WORD = {BF16: 2, F16: 2, F32: 4}
_zstd = zstandard.ZstdDecompressor()


def unzstd(frame, length, what):
    """One frame whose header states `length`; nothing behind it."""
    try:
        parameters = zstandard.get_frame_parameters(frame)
        if parameters.content_size != length or parameters.dict_id or parameters.has_checksum:
            raise Refused(f"{what}: the frame's header does not fit")
        return _zstd.decompress(frame, max_output_size=length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Refused(f"{what}: {error}") from None


@lru_cache(maxsize=8)
def _low_bits(word, count):
    """An integer in which the lowest bit of each of `count` words is set."""
    return int.from_bytes((b"\1" + bytes(word - 1)) * count, "little")


def unplane(body, length, word, what):
    """Puts the planes of a float codec together again."""
    if len(body) < 5:
        raise Refused(f"{what}: planes that end too early")
    phase, z = body[0], read_u(body, 1, 4)
    if phase >= word or phase > length:
        raise Refused(f"{what}: phase {phase}")
    count, tail = divmod(length - phase, word)
    if len(body) != 5 + phase + z + (word - 1) * count + tail:
        raise Refused(f"{what}: planes of a wrong length")
    at = 5 + phase + z
    rotated = bytearray(word * count)
    rotated[word - 1 :: word] = unzstd(body[5 + phase : at], count, what)
    for place in range(word - 2, -1, -1):
        rotated[place::word] = body[at : at + count]
        at += count
    return body[5 : 5 + phase] + _rotate_right(rotated, word, count) + body[at:]


def unplane_both(body, length, what):
    """The same for words of two bytes of which both planes are frames."""
    if len(body) < 5:
        raise Refused(f"{what}: planes that end too early")
    phase, z = body[0], read_u(body, 1, 4)
    if phase >= 2 or phase > length:
        raise Refused(f"{what}: phase {phase}")
    count, tail = divmod(length - phase, 2)
    at, end = 5 + phase + z, len(body) - tail
    if at > end:
        raise Refused(f"{what}: planes of a wrong length")
    rotated = bytearray(2 * count)
    rotated[1::2] = unzstd(body[5 + phase : at], count, what)
    rotated[0::2] = unzstd(body[at:end], count, what)
    return body[5 : 5 + phase] + _rotate_right(rotated, 2, count) + body[end:]


def _rotate_right(words, word, count):
    """Each little-endian word rotated right by one bit, all at once in one long integer."""
    low = _low_bits(word, count)
    value = int.from_bytes(words, "little")
    top = word * 8 - 1
    turned = (value >> 1) & ~(low << top) | (value & low) << top
    return turned.to_bytes(len(words), "little")


def decode(codec, body, length, what):
    """The plaintext, which must have `length` bytes."""
    if codec == RAW:
        plain = body
    elif codec == ZSTD:
        plain = unzstd(body, length, what)
    elif codec in _WORD:
        plain = unplane(body, length, _WORD[codec], what)
    elif codec == PLANES:
        plain = unplane_both(body, length, what)
    else:
        raise Refused(f"{what}: codec {codec}")
    if len(plain) != length:
        raise Refused(f"{what}: {len(plain)} bytes instead of {length}")
    return plain
