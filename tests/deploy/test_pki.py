"""The project's own TLS: Python's ssl takes what is right and refuses what is not."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wardround.deploy import canonical, pki
from wardround.errors import ConfigError, IdentityError

ADDRESSES = ["localhost", "127.0.0.1", "::1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    pki.make_authority("heart", folder / "ca.pem", folder / "ca.key")
    issue(folder, ADDRESSES)
    return folder


def issue(folder: Path, addresses: list[str], name: str = "server", days: int = 30) -> None:
    pki.make_server(
        addresses, folder / "ca.pem", folder / "ca.key", folder / f"{name}.pem", folder / f"{name}.key", days=days
    )


def connect(folder: Path, authority: Path, name: str = "localhost", server: str = "server") -> None:
    """A TLS connection on loopback; what the client refuses is raised."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{server}.pem", folder / f"{server}.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    with context.wrap_socket(connection, server_side=True) as tls:
                        tls.recv(1)
                except OSError:  # the client refused
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            client = ssl.create_default_context(cafile=str(authority))
            with (
                socket.create_connection(listener.getsockname(), timeout=10) as plain,
                client.wrap_socket(plain, server_hostname=name) as tls,
            ):
                assert tls.version() == "TLSv1.3"
                tls.sendall(b"x")
        finally:
            thread.join(10)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_a_site_with_the_authority_connects_to_each_address(made: Path, name: str) -> None:
    connect(made, made / "ca.pem", name)


def test_another_host_another_authority_and_an_expired_certificate_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"evil\.example"):
        connect(made, made / "ca.pem", "evil.example")
    pki.make_authority("heart", tmp_path / "other.pem", tmp_path / "other.key")
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(made, tmp_path / "other.pem")
    issue(made, ADDRESSES, "expired", days=0)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        connect(made, made / "ca.pem", server="expired")


def test_sites_with_both_authorities_connect_before_and_after_the_change(made: Path, tmp_path: Path) -> None:
    pki.make_authority("heart", tmp_path / "ca.pem", tmp_path / "ca.key")
    issue(tmp_path, ADDRESSES)
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "ca.pem").read_bytes() + (made / "ca.pem").read_bytes())
    connect(made, both)
    connect(tmp_path, both)


def test_certificates_say_what_they_are_for(made: Path) -> None:
    authority, (leaf, issuer) = pki.read_certificates(made / "ca.pem")[0], pki.read_certificates(made / "server.pem")
    assert issuer == authority
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(
        ca=True, path_length=0
    )
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    for one in (authority, leaf):
        key = one.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP384R1)
    held = pki.validity(made / "server.pem")
    assert held.addresses == ("localhost", "127.0.0.1", "::1")
    left = held.ends - canonical.now()
    assert timedelta(days=29) < left <= timedelta(days=30)
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE((made / name).stat().st_mode) == 0o600


def test_a_certificate_does_not_outlive_its_authority(tmp_path: Path) -> None:
    pki.make_authority("heart", tmp_path / "ca.pem", tmp_path / "ca.key", days=5)
    issue(tmp_path, ["localhost"], days=365)
    assert pki.validity(tmp_path / "server.pem").ends == pki.validity(tmp_path / "ca.pem").ends
    pki.make_authority("heart", tmp_path / "ca.pem", tmp_path / "ca.key", days=0)
    with pytest.raises(IdentityError, match="authority expired"):
        issue(tmp_path, ["localhost"])


def test_what_cannot_be_issued_is_said(made: Path, tmp_path: Path) -> None:
    pki.make_authority("heart", tmp_path / "ca.pem", tmp_path / "ca.key")
    with pytest.raises(IdentityError, match="is not the key of"):
        pki.make_server(["x"], made / "ca.pem", tmp_path / "ca.key", tmp_path / "s.pem", tmp_path / "s.key", days=1)
    with pytest.raises(ConfigError, match="has no address"):
        issue(tmp_path, [])
    with pytest.raises(ConfigError, match="in ASCII"):
        issue(tmp_path, ["höst"])
    assert not (tmp_path / "s.pem").exists()
    with pytest.raises(IdentityError, match="cannot be read"):
        pki.read_certificates(tmp_path / "absent.pem")
    with pytest.raises(IdentityError, match="no certificate in PEM form"):
        pki.parse_certificates(b"junk", "a file")


def test_a_node_key_proves_that_its_owner_holds_it(tmp_path: Path) -> None:
    line = pki.make_node_key(tmp_path / "node.key")
    assert line.startswith("ecdsa-sha2-nistp384 ")
    assert (tmp_path / "node.pub").read_text() == line + "\n"
    signature = pki.sign_with_node_key(tmp_path / "node.key", b"request")
    pki.verify_node_signature(line, b"request", signature)
    other = pki.make_node_key(tmp_path / "other.key")
    for key, data, given in ((other, b"request", signature), (line, b"other", signature), (line, b"request", "zz")):
        with pytest.raises(IdentityError, match="did not sign the request"):
            pki.verify_node_signature(key, data, given)
    with pytest.raises(IdentityError):
        pki.verify_node_signature("ssh-ed25519 AAAA", b"request", signature)
    small = ec.generate_private_key(ec.SECP256R1())
    p256 = small.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    signed = small.sign(b"wardround/node-key/1\x00request", ec.ECDSA(hashes.SHA384())).hex()
    with pytest.raises(IdentityError, match="expected ecdsa-sha2-nistp384"):
        pki.verify_node_signature(p256, b"request", signed)
    (tmp_path / "node.key").write_bytes(b"junk")
    with pytest.raises(IdentityError, match="in OpenSSH form"):
        pki.sign_with_node_key(tmp_path / "node.key", b"request")
