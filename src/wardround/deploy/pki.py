"""TLS of a project: its own authority, the coordinator's certificate, and the node keys that Flower asks for.

All keys are ECDSA over P-384 (SEC 2), certificates X.509 (RFC 5280). The authority signs the coordinator's certificate and
nothing else: it may issue no further authority, and holding its certificate proves nothing about the holder.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from wardround.deploy import canonical
from wardround.deploy.identity import read_secret, write_secret
from wardround.errors import ConfigError, IdentityError, missing_extra
from wardround.store import atomic

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
        load_ssh_private_key,
        load_ssh_public_key,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as error:
    raise missing_extra("cryptography", "flower") from error

AUTHORITY_DAYS = 3650
_BACK = timedelta(hours=1)
"""How long before now a certificate begins, for clocks that are slow."""
_NODE_LABEL = b"wardround/node-key/1\x00"


@dataclass(frozen=True, kw_only=True)
class Validity:
    """When a certificate holds, and for which addresses."""

    begins: datetime
    ends: datetime
    addresses: tuple[str, ...]


def make_authority(project: str, certificate: Path, key: Path, *, days: int = AUTHORITY_DAYS) -> None:
    """A new authority of the project: its certificate, and its key, which only its owner can read.

    Raises:
        StorageError: the disk cannot be written.
    """
    private = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"wardround {project}"[:64])])
    made = (
        _builder(name, name, private.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA384())
    )
    write_secret(key, _private_bytes(private))
    atomic.write_bytes(certificate, made.public_bytes(Encoding.PEM))


def make_server(
    addresses: Sequence[str], authority: Path, authority_key: Path, certificate: Path, key: Path, *, days: int
) -> None:
    """A new key and certificate of the coordinator.

    Args:
        addresses: host names and IP addresses at which sites reach it.
        authority, authority_key: of the project; the first certificate in the file signs.
        certificate, key: where they go; the certificate is followed by the authority's.
        days: how long it holds, at most as long as the authority.

    Raises:
        ConfigError: no address, or a malformed one.
        IdentityError: the authority's key is not that of its certificate.
    """
    if not addresses:
        raise ConfigError("the coordinator has no address: give at least one host name or IP address")
    issuer, signing = read_certificates(authority)[0], _load(authority_key)
    if _raw(issuer.public_key()) != _raw(signing.public_key()):
        raise IdentityError(f"{authority_key} is not the key of {authority}: restore both from one backup")
    private = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, addresses[0][:64])])
    builder = _builder(subject, issuer.subject, private.public_key(), days, most=issuer.not_valid_after_utc)
    made = (
        builder.add_extension(x509.SubjectAlternativeName([_general_name(one) for one in addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
            critical=False,
        )
        .sign(signing, hashes.SHA384())
    )
    write_secret(key, _private_bytes(private))
    atomic.write_bytes(certificate, made.public_bytes(Encoding.PEM) + issuer.public_bytes(Encoding.PEM))


def read_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates in a PEM file, at least one.

    Raises:
        IdentityError: absent, or malformed.
    """
    try:
        return parse_certificates(path.read_bytes(), str(path))
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror or error}; restore it from a backup") from error


def parse_certificates(data: bytes, what: str) -> list[x509.Certificate]:
    """The certificates in PEM text, at least one. Raises IdentityError where there is none."""
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise IdentityError(f"{what} holds no certificate in PEM form: {error}") from error


def validity(path: Path) -> Validity:
    """When the first certificate in a file holds, and for which addresses."""
    found = read_certificates(path)[0]
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        addresses = tuple(str(one.value) for one in names)
    except x509.ExtensionNotFound:
        addresses = ()
    return Validity(begins=found.not_valid_before_utc, ends=found.not_valid_after_utc, addresses=addresses)


def check_issued(certificate: Path, authority: Path) -> str:
    """The name of the authority that signed the coordinator's certificate, one of those in the file.

    Raises:
        IdentityError: none of them did.
    """
    leaf = read_certificates(certificate)[0]
    for issuer in read_certificates(authority):
        try:
            leaf.verify_directly_issued_by(issuer)
            return issuer.subject.rfc4514_string()
        except (InvalidSignature, ValueError, TypeError):
            continue
    raise IdentityError(f"{certificate} was not issued by {authority}: a site with that authority cannot connect")


# ------------------------------------------------------------------------------------------------------ node keys


def make_node_key(path: Path) -> str:
    """A new node key, in OpenSSH form; the public half lies beside it with the suffix `.pub`, and is returned, one line.

    Raises:
        StorageError: the disk cannot be written.
    """
    private = ec.generate_private_key(ec.SECP384R1())
    line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    write_secret(path, private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    atomic.write_bytes(path.with_suffix(".pub"), line + b"\n")
    return line.decode()


def sign_with_node_key(path: Path, data: bytes) -> str:
    """A signature of `data` by a node key, hexadecimal: proof that its owner holds it."""
    try:
        private = load_ssh_private_key(read_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"{path} is not a private key in OpenSSH form: {error}") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise IdentityError(f"{path} holds a {type(private).__name__}, expected a P-384 key")
    return private.sign(_NODE_LABEL + data, ec.ECDSA(hashes.SHA384())).hex()


def verify_node_signature(line: str, data: bytes, signature: str) -> None:
    """Whether the holder of a public node key, one OpenSSH line, signed `data`.

    Raises:
        IdentityError: another kind of key, or not their signature.
    """
    try:
        public = load_ssh_public_key(line.encode())
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP384R1):
            raise IdentityError(f"a node key is {line[:40]!r}, expected ecdsa-sha2-nistp384")
        public.verify(bytes.fromhex(signature), _NODE_LABEL + data, ec.ECDSA(hashes.SHA384()))
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise IdentityError(
            "a node key did not sign the request it came in: it was altered; ask for it again"
        ) from error


# ---------------------------------------------------------------------------------------------------------- parts


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int, *, most: datetime | None = None
) -> x509.CertificateBuilder:
    today = canonical.now()
    ends = today + timedelta(days=days)
    if most is not None and most <= today:
        raise IdentityError(f"the project's authority expired on {canonical.time_text(most)}: rotate it (--authority)")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - _BACK)
        .not_valid_after(min(ends, most) if most is not None else ends)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=signs_certificates, crl_sign=signs_certificates, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        pass
    try:
        return x509.DNSName(address)
    except ValueError as error:
        raise ConfigError(f"address {address!r}: expected a host name in ASCII or an IP address") from error


def _private_bytes(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _raw(public: object) -> bytes:
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise IdentityError(f"an authority has a {type(public).__name__}, expected a P-384 key")
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _load(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        private = load_pem_private_key(read_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"{path} is not a private key in PEM form: {error}") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise IdentityError(f"{path} holds a {type(private).__name__}, expected a P-384 key")
    return private
