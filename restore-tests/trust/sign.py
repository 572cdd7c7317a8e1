"""Signs a folder by the reference implementation of OpenSSF Model Signing, with keys made here.

Usage: sign.py MODEL OUT. Signatures, keys and certificates go to OUT.
"""

import datetime
import pathlib
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing, signing

MODEL, OUT = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


def key(name, curve):
    made = ec.generate_private_key(curve)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = made.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    public = made.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (OUT / f"{name}.key").write_bytes(private)
    (OUT / f"{name}.pub").write_bytes(public)
    return made


def certificate(name, holder, issuer, issuer_key, begin, end, authority, sign=True):
    named = lambda text: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
    uses = dict.fromkeys(
        "content_commitment key_encipherment data_encipherment key_agreement encipher_only decipher_only".split(), False
    )
    usage = x509.KeyUsage(digital_signature=sign and not authority, key_cert_sign=authority, crl_sign=authority, **uses)
    made = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(holder.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    if not authority:
        code = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CODE_SIGNING])
        made = made.add_extension(code, critical=False)
    made = made.sign(issuer_key, hashes.SHA256())
    (OUT / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))


def sign(name, config):
    config.sign(MODEL, OUT / f"{name}.sig")


def config(hashed=None):
    ignored = {"ignore_git_paths": True}
    made = (hashed or hashing.Config()).set_ignored_paths(paths=[MODEL / "model.sig", MODEL / "notes"], **ignored)
    return signing.Config().set_hashing_config(made)


def main():
    for name, curve in [("p256", ec.SECP256R1()), ("p384", ec.SECP384R1()), ("other", ec.SECP256R1())]:
        key(name, curve)
    for name in ["p256", "p384"]:
        sign(name, config().use_elliptic_key_signer(private_key=OUT / f"{name}.key"))
    shards = hashing.Config().use_shard_serialization(shard_size=1000)
    sign("shards", config(shards).use_elliptic_key_signer(private_key=OUT / "p256.key"))
    blake3 = hashing.Config().use_file_serialization(hashing_algorithm="blake3")
    sign("blake3", config(blake3).use_elliptic_key_signer(private_key=OUT / "p256.key"))
    for authority in ["root", "stranger"]:
        made = key(authority, ec.SECP384R1())
        certificate(authority, made, authority, made, NOW - 4000 * DAY, NOW + 4000 * DAY, True)
        if authority == "root":
            root = made
    spans = {"signer": (NOW - DAY, NOW + 300 * DAY, True), "ended": (NOW - 400 * DAY, NOW - 35 * DAY, True)}
    spans["future"] = (NOW + 30 * DAY, NOW + 300 * DAY, True)
    for name, (begin, end, allowed) in spans.items():
        certificate(name, key(name, ec.SECP256R1()), "root", root, begin, end, False, allowed)
        paths = {"private_key": OUT / f"{name}.key", "signing_certificate": OUT / f"{name}.pem"}
        sign(name, config().use_certificate_signer(**paths, certificate_chain=[OUT / "root.pem"]))


main()
