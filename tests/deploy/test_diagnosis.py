"""`wardround doctor --site` in front of what hospitals really have: a closed port, a wrong clock, a proxy that says no."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.hospitals import free_port
from deploy.parties import initialised, provisioned
from deploy.proxy import Proxy
from wardround.cli.app import app
from wardround.cli.exit import guarded
from wardround.config.load import from_mapping
from wardround.deploy import diagnosis, enrolling, kit, operate, pki
from wardround.deploy.diagnosis import Line
from wardround.deploy.jobs import sign_job
from wardround.deploy.kit import CoordinatorFolder

POLICY: dict[str, Any] = {
    "data": {"breast": {"dataset": "wdbc"}},
    "allow": {"submitters": ["dr-smith"], "models": ["logistic"], "algorithms": ["fedavg"]},
}


class Answering:
    """Something with a certificate that answers every call, with a clock and a status of the test's choice."""

    def __init__(self, port: int, certificate: Path, key: Path) -> None:
        self.ahead, self.status, self.calls = timedelta(), 401, 0
        me = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                me.calls += 1
                self.send_response(me.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def date_time_string(self, timestamp: float | None = None) -> str:
                return format_datetime(datetime.now(UTC) + me.ahead, usegmt=True)

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # a client that does not like the certificate

        self._server = Server(("127.0.0.1", port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[CoordinatorFolder, Path, int]:
    """A coordinator's folder, a site's, and the port that it dials."""
    folder, port = tmp_path_factory.mktemp("project"), free_port()
    coordinator = provisioned(folder, ("a", "b"), coordinator={"addresses": ["127.0.0.1"], "port": port})
    parties = initialised(folder, coordinator, ("a", "b", "dr-smith"))
    roster = enrolling.enrol(coordinator.path, [one.path / "request.json" for one in parties.values()])
    enrolling.join(folder / "a", coordinator.path / "roster.json", roster.code)
    (folder / "a" / "site.yaml").write_text(yaml.safe_dump(POLICY))
    python = folder / "python"
    python.write_text("#!/bin/sh\necho 1.41.0\n")
    python.chmod(0o755)
    return coordinator, folder / "a", port


@pytest.fixture
def site(made: tuple[CoordinatorFolder, Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the site's folder, and an environment without a proxy."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WARDROUND_FLOWER_PYTHON", str(made[1].parent / "python"))
    copy = tmp_path / "a"
    shutil.copytree(made[1], copy)
    copy.chmod(0o700)
    return copy


@pytest.fixture
def answering(made: tuple[CoordinatorFolder, Path, int]) -> Iterator[Answering]:
    server = Answering(made[2], *made[0].server)
    yield server
    server.close()


def bad(lines: list[Line]) -> dict[str, Line]:
    return {line.what: line for line in lines if line.state == "bad"}


def line(lines: list[Line], what: str) -> Line:
    (found,) = [one for one in lines if one.what == what]
    return found


def test_a_sound_site_is_ready(site: Path, answering: Answering) -> None:
    lines = diagnosis.diagnose(site)
    assert bad(lines) == {}
    good = {one.what: one.found for one in lines if one.state == "good"}
    assert good["data breast"] == "569 rows of 569 patients, by wdbc"
    assert good["TCP"].startswith("127.0.0.1:")
    assert good["TLS"].startswith("TLSv1.3, certificate of the project's authority, holds until ")
    assert good["proxy"].startswith("none")
    assert good["clock"] == "within 2 s of the coordinator's"
    assert good["SuperLink"].startswith("answers")
    assert good["Flower"].startswith("1.41.0")
    assert answering.calls == 1


def test_it_changes_nothing(site: Path, answering: Answering) -> None:
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    diagnosis.diagnose(site)
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == before


def test_a_closed_port(site: Path) -> None:
    found = bad(diagnosis.diagnose(site))
    assert set(found) == {"TCP"}
    assert "refused" in found["TCP"].found
    assert "firewall" in found["TCP"].remedy


def test_a_name_without_an_address(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    found = bad(diagnosis.diagnose(site))
    assert set(found) == {"DNS"}
    assert "Name or service not known" in found["DNS"].found


def expired(coordinator: CoordinatorFolder, folder: Path, ends: timedelta, begins: timedelta) -> tuple[Path, Path]:
    """A certificate of the right authority with another term."""
    authority = x509.load_pem_x509_certificate(coordinator.authority.read_bytes())
    signer: Any = serialization.load_pem_private_key((coordinator.path / "authority.key").read_bytes(), None)
    key, now = ec.generate_private_key(ec.SECP384R1()), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(signer, hashes.SHA384())
    )
    files = folder / "other.pem", folder / "other.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))
    return files


@pytest.mark.parametrize(
    ("begins", "ends", "state", "says", "remedy"),
    [
        (-3, -1, "bad", "certificate has expired", "rotate DIR --server"),
        (1, 3, "bad", "not yet valid", "clock is behind"),
        (-3, 5, "note", "days are left", "rotate DIR --server"),
    ],
)
def test_the_term_of_the_certificate(
    made: tuple[CoordinatorFolder, Path, int], site: Path, tmp_path: Path, begins: int, ends: int, state: str, says: str,
    remedy: str,
) -> None:  # fmt: skip
    server = Answering(made[2], *expired(made[0], tmp_path, timedelta(days=ends), timedelta(days=begins)))
    try:
        found = line(diagnosis.diagnose(site), "TLS")
    finally:
        server.close()
    assert found.state == state
    assert says in found.found
    assert remedy in found.remedy
    assert server.calls == (state != "bad")


def test_another_authority(made: tuple[CoordinatorFolder, Path, int], site: Path, tmp_path: Path) -> None:
    stranger = provisioned(tmp_path / "x", ("a",), coordinator={"addresses": ["127.0.0.1"], "port": made[2]})
    server = Answering(made[2], *stranger.server)
    try:
        found = bad(diagnosis.diagnose(site))
    finally:
        server.close()
    assert set(found) == {"TLS"}
    assert "inspects TLS" in found["TLS"].remedy
    assert server.calls == 0


def test_another_name(made: tuple[CoordinatorFolder, Path, int], site: Path, tmp_path: Path) -> None:
    folder = made[0].path
    files = tmp_path / "s.pem", tmp_path / "s.key"
    pki.make_server(["fl.example.org"], made[0].authority, folder / "authority.key", *files, days=30)
    server = Answering(made[2], *files)
    try:
        found = bad(diagnosis.diagnose(site))
    finally:
        server.close()
    assert "coordinator.addresses" in found["TLS"].remedy


@pytest.mark.parametrize(
    ("days", "seconds", "state"), [(1, 0, "bad"), (-1, 0, "bad"), (0, -60, "bad"), (0, 60, "note"), (0, 0, "good")]
)
def test_clocks(site: Path, answering: Answering, days: int, seconds: int, state: str) -> None:
    answering.ahead = timedelta(days=days, seconds=seconds)
    found = line(diagnosis.diagnose(site), "clock")
    assert found.state == state
    if state != "good":
        assert "NTP" in found.remedy
        assert ("behind the" in found.found) == (answering.ahead > timedelta())


@pytest.mark.parametrize(
    ("status", "says"), [(502, "nginx"), (404, "something else"), (429, "limits"), (200, "something else")]
)
def test_what_answers_is_not_a_superlink(site: Path, answering: Answering, status: int, says: str) -> None:
    answering.status = status
    found = line(diagnosis.diagnose(site), "SuperLink")
    assert found.state == "bad"
    assert says in found.found + found.remedy


def test_a_silent_port_is_no_tls(made: tuple[CoordinatorFolder, Path, int], site: Path) -> None:
    def hang_up() -> None:
        inner, _ = listener.accept()
        inner.recv(1000)
        inner.close()

    with socket.create_server(("127.0.0.1", made[2])) as listener:
        threading.Thread(target=hang_up, daemon=True).start()
        found = bad(diagnosis.diagnose(site))
    assert set(found) == {"TLS"}


def test_through_a_proxy(site: Path, answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Proxy()
    monkeypatch.setenv("HTTPS_PROXY", f"http://ann:se%3Acret@127.0.0.1:{proxy.port}")
    lines = diagnosis.diagnose(site)
    proxy.close()
    assert bad(lines) == {}
    assert str(proxy.port) in line(lines, "proxy").found
    assert "cret" not in str(lines)
    assert proxy.asked[-1].startswith("CONNECT 127.0.0.1:")
    assert "Proxy-Authorization: Basic YW5uOnNlOmNyZXQ=" in proxy.asked[-1]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert line(diagnosis.diagnose(site), "proxy").found.startswith("none")


def test_a_proxy_that_refuses(site: Path, answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Proxy("407 Proxy Authentication Required")
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    found = bad(diagnosis.diagnose(site))
    proxy.close()
    assert set(found) == {"proxy"}
    assert "407" in found["proxy"].found
    assert answering.calls == 0


def test_keys_that_others_can_read_and_keys_that_are_none(site: Path, answering: Answering) -> None:
    (site / "identity.pem").chmod(0o644)
    (site / "node.key").write_text("nonsense")
    (site / "node.key").chmod(0o600)
    lines = diagnosis.diagnose(site)
    found = [one.found for one in lines if one.state == "bad"]
    assert any("identity.pem has mode 0644" in text for text in found)
    assert any("node.key is not a private key" in text for text in found)


def test_an_absent_key_and_an_absent_authority(site: Path, answering: Answering) -> None:
    (site / "identity.pem").unlink()
    assert any("identity.pem is absent" in one.found for one in diagnosis.diagnose(site) if one.state == "bad")
    (site / "authority.pem").unlink()
    assert {"authority", "identity", "TLS"} == set(bad(diagnosis.diagnose(site)))


def test_a_folder_and_a_policy_that_others_can_change(site: Path, answering: Answering) -> None:
    site.chmod(0o755)
    (site / "site.yaml").chmod(0o666)
    found = [one.remedy for one in diagnosis.diagnose(site) if one.what == "permissions"]
    assert found == [f"chmod 700 {site}", f"chmod go-w {site / 'site.yaml'}"]


@pytest.mark.parametrize(
    ("changes", "what", "says"),
    [
        ({"data": {"heart": {"dataset": "hearts"}}}, "data heart", "hearts"),
        ({"data": {"heart": {"dataset": "custom", "options": {"schema": "nowhere.yaml"}}}}, "data heart", "nowhere"),
        ({"cohort": {"minimum_rows": 600}}, "data breast", "minimum_rows is 600"),
        ({"nonsense": 1}, "policy", "nonsense"),
    ],
)
def test_records_and_policies(site: Path, answering: Answering, changes: dict[str, Any], what: str, says: str) -> None:
    (site / "site.yaml").write_text(yaml.safe_dump({**POLICY, **changes}))
    found = bad(diagnosis.diagnose(site))
    assert set(found) == {what}
    assert says in found[what].found


def test_options_that_come_with_a_job(
    site: Path, answering: Answering, tmp_path: Path, made: tuple[CoordinatorFolder, Path, int]
) -> None:
    table = tmp_path / "table.csv"
    binding = {"dataset": "custom", "options": {"path": str(table)}, "from_job": ["schema"]}
    allow = {**POLICY["allow"], "channels": ["secagg"]}
    (site / "site.yaml").write_text(yaml.safe_dump({**POLICY, "data": {"custom": binding}, "allow": allow}))
    assert "there is no such file" in bad(diagnosis.diagnose(site))["data custom"].found
    table.write_text("age,ill\n" + "50,0\n60,1\n50,1\n" * 40)
    found = line(diagnosis.diagnose(site), "data custom")
    assert (found.state, "schema comes with a job" in found.found) == ("note", True)
    schema = {"columns": {"age": "numeric", "ill": {"kind": "label", "classes": {"no": ["0"], "yes": ["1"]}}}}
    job = from_mapping({"data": {"dataset": "custom", "options": {"schema": schema}}})
    folder = kit.PartyFolder(site)
    submitter = kit.PartyFolder(made[1].parent / "dr-smith")
    marks = {entry.name: entry.fingerprint for entry in folder.roster().entries if entry.role == "site"}
    signed = sign_job(submitter.identity(), job, marks)
    folder.approvals().receive(signed, folder.judge(signed, None))
    assert line(diagnosis.diagnose(site), "data custom").found == "120 rows of 120 patients, by custom"


def test_a_plug_in_is_not_loaded(site: Path, answering: Answering) -> None:
    marker = site / "marker"
    (site / "plugins" / "hostile.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    binding = {"data": {"x": {"dataset": "hostile:Data"}}, "plugins": {"hostile:Data": "0" * 64}}
    (site / "site.yaml").write_text(yaml.safe_dump({**POLICY, **binding}))
    assert line(diagnosis.diagnose(site), "data x").state == "note"
    assert not marker.exists()


def test_a_site_that_the_coordinator_does_not_know(
    site: Path, answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"running": True, "connected": False, "cause": 'HTTP 412: {"code":2004}', "doing": "waiting"}
    monkeypatch.setattr(operate, "status", lambda _: told)
    found = bad(diagnosis.diagnose(site))["process"]
    assert "HTTP 412" in found.found
    assert "revoked" in found.remedy


def test_a_full_disk(site: Path, answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": 2**27})
    monkeypatch.setattr(diagnosis.shutil, "disk_usage", lambda _: usage)
    assert "make room" in bad(diagnosis.diagnose(site))["disk"].remedy


def test_flower_of_another_version(site: Path, answering: Answering, tmp_path: Path, monkeypatch: Any) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 1.20.0\n")
    python.chmod(0o755)
    monkeypatch.setenv("WARDROUND_FLOWER_PYTHON", str(python))
    assert "1.20.0" in bad(diagnosis.diagnose(site))["Flower"].found
    monkeypatch.setenv("WARDROUND_FLOWER_PYTHON", str(tmp_path / "none"))
    assert set(bad(diagnosis.diagnose(site))) == {"Flower"}


def test_the_command(site: Path, answering: Answering, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(app, ["doctor", "--site", str(site), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["healthy"] is True
    assert {"state", "what", "found", "do"} == set(said["checks"][0])
    answering.status = 502
    assert guarded(app, ["doctor", "--site", str(site)]) == 3
    assert "do: ask the coordinator to start it" in " ".join(capsys.readouterr().out.split())
    assert guarded(app, ["doctor", "--site", str(site.parent)]) == 2
