"""Who knocks at the SuperLink or at a site's relay without a right to, with real Flower processes and no records."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.hospitals import LOADED, flower_python, free_port, until
from deploy.parties import initialised, provisioned
from wardround.deploy import enrolling, pki
from wardround.deploy.supervise import Child
from wardround.federation.engines.flower import relay
from wardround.federation.engines.flower.relay import Frame

PYTHON = flower_python()
pytestmark = pytest.mark.skipif(PYTHON is None, reason="needs an interpreter with flwr (WARDROUND_FLOWER_PYTHON)")
SECRET = "0" * 64

HOSTILE = """
import hashlib, io, zipfile
sys.argv[0] = {path!r}
buffer = io.BytesIO()
with zipfile.ZipFile(buffer, "w") as archive:
    project = zipfile.ZipFile(io.BytesIO(relay.bundle())).read("pyproject.toml")
    archive.writestr("pyproject.toml", project)
    archive.writestr("nothing.py", "open({marker!r}, 'w').write('ran')\\napp = None\\n")
relay.bundle = buffer.getvalue
relay.BUNDLE = hashlib.sha256(buffer.getvalue()).hexdigest()
"""


class Net:
    """A SuperLink, the coordinator's relay and two sites' relays that echo."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.coordinator = provisioned(
            folder, ("a", "b", "c"), coordinator={"addresses": ["127.0.0.1"], "port": self.port}
        )
        parties = initialised(folder, self.coordinator, ("a", "b", "c"))
        enrolling.enrol(self.coordinator.path, [one.path / "request.json" for one in parties.values()])
        self.keys = {name: one.node_key for name, one in parties.items()}
        self.frames: dict[str, list[Frame]] = {}
        self.children: dict[str, Child] = {}
        self.sites = {name: path.read_text() for name, path in self.coordinator.node_keys().items()}

    def child(self, name: str, kind: str, options: dict[str, Any], **more: Any) -> Child:
        frames = self.frames.setdefault(name, [])

        def take(frame: Frame) -> None:
            frames.append(frame)
            if frame[0]["op"] == "datagram":
                self.children[name].send({"key": frame[0]["key"]}, frame[1])

        made = Child(
            kind, lambda: options, home=self.folder / f"{name}-home", log=self.folder / f"{name}.log", take=take
        )
        self.children[name] = made
        made.start()
        return made

    def superlink(self, name: str = "superlink", **changes: Any) -> None:
        certificate, key = self.coordinator.server
        options = {
            "host": "127.0.0.1", "port": self.port, "certificate": str(certificate), "key": str(key),
            "authority": str(self.coordinator.authority), "secret": SECRET, **changes,
        }  # fmt: skip
        self.child(name, "superlink", options)

    def relay_options(self) -> dict[str, Any]:
        return {
            "address": f"127.0.0.1:{self.port}", "name": "127.0.0.1", "authority": str(self.coordinator.authority),
            "secret": SECRET, "sites": self.sites,
        }  # fmt: skip

    def site_options(self, key: Path) -> dict[str, Any]:
        return {"address": f"127.0.0.1:{self.port}", "authority": str(self.coordinator.authority), "key": str(key)}

    def site(self, name: str, key: Path) -> None:
        self.child(name, "site", self.site_options(key))

    def heard(self, name: str, op: str, **facts: Any) -> Frame | None:
        for frame in list(self.frames.get(name, ())):
            if frame[0]["op"] == op and all(frame[0].get(key) == value for key, value in facts.items()):
                return frame
        return None

    def close(self) -> None:
        threads = [threading.Thread(target=child.stop) for child in self.children.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    patch = pytest.MonkeyPatch()
    patch.setenv("WARDROUND_FLOWER_PYTHON", str(PYTHON))
    made = Net(tmp_path_factory.mktemp("net"))
    try:
        made.superlink()
        made.child("coordinator", "coordinator", made.relay_options())
        for name in ("a", "b"):
            made.site(name, made.keys[name])
        until(lambda: made.heard("coordinator", "online", sites=["a", "b"]), 60, "both sites are online")
        yield made
    finally:
        made.close()
        patch.undo()
    assert not subprocess.run(["pgrep", "-f", str(made.folder)], capture_output=True, check=False).stdout


def knock(net: Net, path: str, body: bytes = b"", **headers: str) -> int:
    context = ssl.create_default_context(cafile=str(net.coordinator.authority))
    asked = urllib.request.Request(
        f"https://127.0.0.1:{net.port}{path}", data=body, method="POST",
        headers={"content-type": "application/protobuf", **headers},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(asked, context=context, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_an_exchange_of_nothing_takes_less_than_four_seconds(net: Net) -> None:
    times = []
    for number in range(5):
        began = time.monotonic()
        for site in ("a", "b"):
            net.children["coordinator"].send({"op": "post", "key": f"{site}{number}", "site": site}, b"nothing")
        for site in ("a", "b"):
            until(lambda site=site, n=number: net.heard("coordinator", "answer", key=f"{site}{n}"), 20, "an answer")
        times.append(time.monotonic() - began)
    assert sorted(times)[2] <= 4.0


@pytest.mark.parametrize("size", [0, 1, relay._SHORT, relay._SHORT + 1, relay.PART])
def test_datagrams_of_any_length_cross_whole(net: Net, size: int) -> None:
    data = random.Random(size).randbytes(size)
    net.children["coordinator"].send({"op": "post", "key": f"of {size}", "site": "a"}, data)
    found = until(lambda: net.heard("coordinator", "answer", key=f"of {size}"), 30, "the echo")
    assert found[1] == data


@contextlib.contextmanager
def scripted(net: Net, kind: str, options: dict[str, Any], before: str) -> Iterator[relay.Pipe]:
    """A relay in which some lines have run before."""
    code = (
        f"import sys\nsys.path.insert(0, {str(Path(relay.__file__).parent)!r})\nimport relay\n{before}\nrelay.main()\n"
    )
    with (net.folder / "scripted.log").open("ab") as log:
        process = subprocess.Popen(
            [str(PYTHON), "-c", code, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    assert process.stdin is not None
    assert process.stdout is not None
    pipe = relay.Pipe(process.stdout, process.stdin)  # type: ignore[arg-type]
    pipe.send(options)
    try:
        yield pipe
    finally:
        process.stdin.close()
        process.wait(15 * LOADED)
        process.stdout.close()


COUNTED = """
from flwr.supernode.fleet_http_client import FleetHttpClient
pull = FleetHttpClient.PullMessages
def counted(*args, **more):
    with open({tally!r}, "a") as file:
        file.write("x")
    return pull(*args, **more)
FleetHttpClient.PullMessages = counted
"""


def test_what_is_for_a_site_that_is_not_there_is_lost(net: Net) -> None:
    """Flower answers in its place, with what was sent to it and an error."""
    net.children["coordinator"].send({"op": "post", "key": "for nobody", "site": "c"}, b"x")
    lost = until(lambda: net.heard("coordinator", "lost", key="for nobody"), 60, "nobody has it")
    assert lost[0]["cause"].startswith("an error message")
    assert net.heard("coordinator", "answer", key="for nobody") is None


def test_who_waits_for_messages_asks_seldom(net: Net) -> None:
    """Flower's empty answer is one that the guard knows: the next question is held back until there is a message."""
    tally = net.folder / "tally"
    with scripted(net, "site", net.site_options(net.keys["c"]), COUNTED.format(tally=str(tally))) as pipe:
        frame = pipe.receive()
        time.sleep(2 * relay._HOLD)
        asked = len(tally.read_text())
    assert frame is not None
    assert frame[0]["op"] == "up"
    assert 2 <= asked <= 5  # and 160 without


def test_a_label_that_is_no_datagram_is_a_lost_one(net: Net) -> None:
    with scripted(net, "site", net.site_options(net.keys["c"]), "relay._label = lambda data: '***'") as pipe:
        frame = pipe.receive()
        assert frame is not None
        assert frame[0]["op"] == "up"
        net.children["coordinator"].send({"op": "post", "key": "label", "site": "c"}, b"x")
        frame = pipe.receive()
        assert frame is not None
        assert frame[0]["op"] == "datagram"
        pipe.send({"key": frame[0]["key"]}, b"an answer")
        lost = until(lambda: net.heard("coordinator", "lost", key="label"), 30, "its answer is none")
    assert lost[0]["cause"] == "a message whose label is no datagram"
    net.children["coordinator"].send({"op": "post", "key": "after it", "site": "a"}, b"x")
    until(lambda: net.heard("coordinator", "answer", key="after it"), 30, "the others are still served")


@pytest.mark.parametrize(
    "path",
    ["/v1/control/list-runs", "/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/acquire-task",
     "/v1/runtime/push-messages", "/docs", "/openapi.json", "/v1/fleet/../control/list-runs", "//v1/control/list-runs"],
)  # fmt: skip
def test_the_authority_file_alone_opens_nothing_but_the_fleet(net: Net, path: str) -> None:
    assert knock(net, path) == 404
    assert knock(net, path, **{relay.GUARD: "1" * 64}) == 404
    assert '"what": "path"' in (net.folder / "superlink.log").read_text()


def test_fleet_paths_without_a_key_and_oversized_bodies_are_refused(net: Net) -> None:
    assert knock(net, "/v1/fleet/pull-messages") in (401, 422, 400)
    assert knock(net, "/v1/fleet/register-node") in (401, 422, 400)
    with contextlib.suppress(urllib.error.URLError):  # the connection may be closed while the body is on its way
        assert knock(net, "/v1/fleet/push-object", b"x" * (relay.BODY_LIMIT + 1)) == 413
    log = net.folder / "superlink.log"
    until(lambda: '"what": "oversized"' in log.read_text(), 15, "the refusal is in the log")


def test_an_unknown_key_is_refused(net: Net) -> None:
    path = net.folder / "stranger.key"
    pki.make_node_key(path)
    net.site("stranger", path)
    down = until(lambda: net.heard("stranger", "down"), 30, "the stranger is refused")
    assert "HTTP" in down[0]["cause"] or "code" in down[0]["cause"]
    assert net.heard("stranger", "up") is None
    net.children["stranger"].stop()


LATE = """
import datetime, importlib
auth = importlib.import_module("flwr.supernode.node_auth_http_interceptor")
true_now = auth.now
auth.now = lambda: true_now() + datetime.timedelta(days=1)
"""


def test_a_clock_a_day_off_is_refused_and_named(net: Net) -> None:
    with scripted(net, "site", net.site_options(net.keys["a"]), LATE) as pipe:
        frame = pipe.receive()
    assert frame is not None
    assert frame[0]["op"] == "down"
    assert "clock" in frame[0]["cause"]


def test_a_key_in_a_second_place_is_refused_while_the_first_is_there(net: Net) -> None:
    net.site("second", net.keys["a"])
    down = until(lambda: net.heard("second", "down"), 30, "the second place is refused")
    assert "HTTP" in down[0]["cause"]
    assert net.heard("second", "up") is None
    net.children["second"].stop()
    net.children["coordinator"].send({"op": "post", "key": "still", "site": "a"}, b"x")
    until(lambda: net.heard("coordinator", "answer", key="still"), 20, "the first is still served")


def test_a_hostile_bundle_is_refused_before_any_of_it_runs(net: Net) -> None:
    marker = net.folder / "marker"
    before = HOSTILE.format(path=relay.__file__, marker=str(marker))
    with scripted(net, "coordinator", net.relay_options(), before) as pipe:
        while (frame := pipe.receive()) is not None and frame[0]["op"] != "up":
            pass
        pipe.send({"op": "post", "key": "evil", "site": "b"}, b"run it")
        found = until(lambda: net.heard("b", "refused", what="bundle"), 30, "the bundle is refused")
        assert found[0]["bundle"] != relay.BUNDLE
        while (frame := pipe.receive()) is not None and frame[0]["op"] != "answer":
            pass
        assert frame is not None
        assert json.loads(frame[1])["refused"]
    assert not marker.exists()
    assert not any(frame[1] == b"run it" for frame in net.frames["b"])
    net.children["coordinator"].send({"op": "post", "key": "after", "site": "b"}, b"x")
    until(lambda: net.heard("coordinator", "answer", key="after"), 30, "the honest run is still served")


def expired(net: Net, folder: Path) -> tuple[Path, Path]:
    """A server certificate of the right authority that ended yesterday."""
    authority = x509.load_pem_x509_certificate(net.coordinator.authority.read_bytes())
    signer: Any = serialization.load_pem_private_key((net.coordinator.path / "authority.key").read_bytes(), None)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coordinator")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=3))
        .not_valid_after(now - timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(signer, hashes.SHA384() if isinstance(signer, ec.EllipticCurvePrivateKey) else None)
    )
    files = folder / "expired.pem", folder / "expired.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def test_sites_refuse_an_expired_certificate(net: Net, tmp_path: Path) -> None:
    certificate, key = expired(net, tmp_path)
    port = free_port()
    net.superlink("expired", port=port, certificate=str(certificate), key=str(key))
    options = {
        "address": f"127.0.0.1:{port}", "authority": str(net.coordinator.authority), "key": str(net.keys["a"])
    }  # fmt: skip
    net.child("careful", "site", options)
    until(
        lambda: any("expired" in frame[0].get("cause", "") for frame in net.frames["careful"]), 40,
        "the site names the expired certificate",
    )  # fmt: skip
    assert net.heard("careful", "up") is None
    for name in ("careful", "expired"):
        net.children[name].stop()


def test_a_revoked_key_is_refused(net: Net) -> None:
    del net.sites["b"]
    net.frames["b"].clear()
    net.children["coordinator"].kick()  # as the coordinator does once its roster has changed
    until(lambda: net.heard("b", "down"), 60, "the revoked site is put out")
    before = len(net.frames["b"])
    time.sleep(1.0)
    assert not any(frame[0]["op"] == "up" for frame in net.frames["b"][before:])


def test_whom_the_guard_refused_the_coordinator_is_told(net: Net) -> None:
    assert net.heard("superlink", "guard", what="path") is not None
    marks = [frame[0].get("key", "") for frame in net.frames["superlink"] if frame[0].get("what") == "key"]
    assert any(mark.startswith("SHA256:") for mark in marks)


def test_half_requests_are_ended_and_keep_nobody_out(net: Net) -> None:
    context = ssl.create_default_context(cafile=str(net.coordinator.authority))
    held = []
    for _ in range(20):
        one = context.wrap_socket(socket.create_connection(("127.0.0.1", net.port), 10), server_hostname="127.0.0.1")
        one.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nX-a: ")
        held.append(one)
    assert knock(net, "/v1/control/start-run") == 404
    began = time.monotonic()
    for one in held:
        one.settimeout(60)
        with contextlib.suppress(OSError):
            assert one.recv(1) == b""
        one.close()
    assert time.monotonic() - began < 6 * relay._HEAD_SECONDS
    assert knock(net, "/v1/control/start-run") == 404
