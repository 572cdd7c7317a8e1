"""The primitives of sections 1, 5 and 7: hashes, key derivation, AES-256-GCM, Ed25519, X-Wing, Argon2id."""

import hashlib
import hmac

from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import Refused, WrongKey

CONTEXT = "holdfast.io/format/1 "
ZERO_NONCE = bytes(12)


def u16(x):
    return x.to_bytes(2, "little")


def u32(x):
    return x.to_bytes(4, "little")


def u64(x):
    return x.to_bytes(8, "little")


def read_u(data, at, size):
    """An unsigned little-endian integer of `size` bytes."""
    return int.from_bytes(data[at : at + size], "little")


def H(message):
    return blake3(message).digest()


def MAC(key, message):
    return blake3(message, key=key).digest()


def KD(context, material, length):
    return blake3(material, derive_key_context=CONTEXT + context).digest(length)


def same(a, b):
    """Compares in constant time."""
    return hmac.compare_digest(a, b)


def commit(expected, found, what):
    if not same(expected, found):
        raise WrongKey(f"{what}: the commitment does not fit")


def seal(key, nonce, aad, message):
    return AESGCM(key).encrypt(nonce, message, aad)


def unseal(key, nonce, aad, sealed, what):
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise Refused(f"{what}: the tag does not fit") from None


# --- Ed25519, strict (section 5) ---

_P = 2**255 - 19
_D = -121665 * pow(121666, _P - 2, _P) % _P


def _point(encoded):
    """The affine point of a canonical RFC 8032 encoding; None if it is none."""
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    sign = encoded[31] >> 7
    if y >= _P:
        return None
    x2 = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(x2, (_P + 3) // 8, _P)
    if (x * x - x2) % _P != 0:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    if (x * x - x2) % _P != 0 or (x == 0 and sign):
        return None
    return (_P - x if x & 1 != sign else x), y


def _double(point):
    x, y = point
    k = _D * x * x * y * y % _P
    return (
        2 * x * y * pow(1 + k, _P - 2, _P) % _P,
        (y * y + x * x) * pow(1 - k, _P - 2, _P) % _P,
    )


def strong_key(encoded):
    """Whether this is a point, canonically encoded, whose order is not 1, 2, 4 or 8."""
    point = _point(encoded)
    for _ in range(3):
        point = point and _double(point)
    return point is not None and point != (0, 1)


_strong = {}


def verify(key, signature, message, what):
    """Section 5: RFC 8032, and neither the key nor R may have small order."""
    if key not in _strong:
        _strong[key] = strong_key(key)
    if not _strong[key] or not strong_key(signature[:32]):
        raise Refused(f"{what}: weak key or signature")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        raise Refused(f"{what}: the signature does not fit") from None


def signing_public(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def signed_message(kind, repository, key, digest):
    """The message of section 5."""
    name = key.encode()
    return b"holdfast.io/format/1 sign" + bytes([kind]) + repository + u16(len(name)) + name + digest


# --- X-Wing, draft-connolly-cfrg-xwing-kem (section 7) ---

_LABEL = b"\\.//^\\"


def xwing_private(seed):
    """The ML-KEM-768 and X25519 private keys that a decapsulation seed stands for."""
    expanded = hashlib.shake_256(seed).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])


def xwing_public(seed):
    """The public key of 1216 bytes."""
    mlkem, x25519 = xwing_private(seed)
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def xwing_combine(mlkem_secret, x25519_secret, x25519_ciphertext, x25519_public):
    return hashlib.sha3_256(mlkem_secret + x25519_secret + x25519_ciphertext + x25519_public + _LABEL).digest()


def xwing_decapsulate(seed, ciphertext):
    """The shared secret in a ciphertext of 1120 bytes."""
    mlkem, x25519 = xwing_private(seed)
    share = ciphertext[1088:]
    return xwing_combine(
        mlkem.decapsulate(ciphertext[:1088]),
        x25519.exchange(X25519PublicKey.from_public_bytes(share)),
        share,
        x25519.public_key().public_bytes_raw(),
    )


def argon2id(passphrase, salt, memory, passes, lanes):
    return hash_secret_raw(passphrase, salt, passes, memory, lanes, 32, Type.ID, 0x13)
