"""`edgec farm certs`: an authority, and a certificate for each machine that takes part.

    certs/ca.pem, ca.key                       the authority; the key stays where it was made
    certs/NAME/{ca,cert,key}.pem               what goes to the machine NAME

Elliptic keys (P-256), valid for both ends of a connection: a Dask worker listens and connects.
There is no list of revoked certificates in Dask: who must be kept out means a new authority.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edgec.errors import InputError, ToolchainError
from edgec.farm.link import AUTHORITY, CERTIFICATE, KEY

AUTHORITY_KEY = "ca.key"
DAYS = 3650, 825  # of the authority, of a machine

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
except ImportError:  # devices do without; the functions below say so
    x509 = None  # type: ignore[assignment]


def make(folder: Path, names: tuple[str, ...], *, force: bool = False) -> list[Path]:
    """The folders of the machines. An authority that is there is used again.

    InputError: a certificate is there already, or a name is none.
    """
    if x509 is None:
        raise ToolchainError(
            "making certificates needs the package cryptography",
            hint='pip install "edgec[farm-certs]", on this machine alone',
        )
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
            raise InputError(f"{name!r} is no name of a machine", hint="use letters, digits and -")
        if (folder / name / CERTIFICATE).exists() and not force:
            raise InputError(
                f"{folder / name} has a certificate", hint="give --force to replace it"
            )
    key, certificate = _authority(folder)
    authority = certificate.public_bytes(serialization.Encoding.PEM)
    made = []
    for name in names:
        own = ec.generate_private_key(ec.SECP256R1())
        issued = _certificate(name, own.public_key(), certificate.subject, key, DAYS[1], ca=False)
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        _write(place / AUTHORITY, authority)
        _write(place / KEY, _private(own), secret=True)
        _write(place / CERTIFICATE, issued.public_bytes(serialization.Encoding.PEM))
        made.append(place)
    return made


def _authority(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    public, private = folder / AUTHORITY, folder / AUTHORITY_KEY
    if public.exists() != private.exists():
        missing = private if public.exists() else public
        raise InputError(
            f"{missing} is missing", hint="bring it back, or make an authority in another folder"
        )
    if private.exists():
        key = serialization.load_pem_private_key(private.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InputError(f"{private} is not a key of edgec's", hint="use another folder")
        return key, x509.load_pem_x509_certificate(public.read_bytes())
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("edgec farm authority")
    certificate = _certificate(
        "edgec farm authority", key.public_key(), name, key, DAYS[0], ca=True
    )
    _write(private, _private(key), secret=True)
    _write(public, certificate.public_bytes(serialization.Encoding.PEM))
    return key, certificate


def _certificate(
    name: str,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    days: int,
    *,
    ca: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=ca, crl_sign=ca, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # boards without a clock battery lag behind
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if not ca:
        ends = [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH, x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(ends), critical=False)
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text)])


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes, *, secret: bool = False) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
    partial.replace(path)
