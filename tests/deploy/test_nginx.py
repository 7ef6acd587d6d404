"""The configuration of nginx, with a real nginx: what passes to the SuperLink behind it, and what does not."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.hospitals import SITES, Hospitals, flower_python, free_port, until
from deploy.parties import provisioned
from deploy.proxy import Proxy
from deploy.test_flower import write_job
from wardround.federation.engines.flower import relay

CONFIGURATION = Path(__file__).parents[2] / "packaging" / "nginx" / "wardround.conf"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
DATA = os.environ.get("WARDROUND_DATA", "")

AROUND = """daemon off;
worker_processes 1;
pid FOLDER/nginx.pid;
error_log FOLDER/error.log warn;
events { worker_connections 256; }
http {
  client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy; fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi; scgi_temp_path FOLDER/scgi;
  include FOLDER/wardround.conf;
}
"""


class Front:
    """A running nginx.

    Args:
        folder: an empty one.
        coordinator: folder with the certificate.
        port, behind: where it listens, and where the SuperLink does.
    """

    def __init__(self, folder: Path, coordinator: Path, port: int, behind: int) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.port, self.authority = folder, port, coordinator / "authority.pem"
        text = CONFIGURATION.read_text()
        for old, new in (
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"), ("127.0.0.1:9443", f"127.0.0.1:{behind}"),
            ("fl.example.org", "127.0.0.1"), ("/srv/coordinator", str(coordinator)), ("/var/log/nginx", str(folder)),
        ):  # fmt: skip
            assert old in text
            text = text.replace(old, new)
        (folder / "wardround.conf").write_text(text)
        main = folder / "nginx.conf"
        # as root, nginx would give the worker to another user, who could not write here
        user = "user root;\n" if os.geteuid() == 0 else ""
        main.write_text(user + AROUND.replace("FOLDER", str(folder)))
        command = [str(NGINX), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(main)]
        tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        assert tested.returncode == 0, tested.stderr
        assert "warn" not in tested.stderr
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._listens, 10, "nginx listens")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def ask(self, path: str, body: bytes = b"", method: str = "POST", **headers: str) -> http.client.HTTPResponse:
        """One request, with no more than the authority's certificate."""
        context = ssl.create_default_context(cafile=str(self.authority))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=10)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                connection.putheader(name, value)
            connection.endheaders()
            with contextlib.suppress(OSError):  # refused by its length before all of it was sent
                connection.send(body)
            response = connection.getresponse()
            response.read()
            return response
        finally:
            connection.close()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


class Behind:
    """A server with the coordinator's certificate that notes what reaches it."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.taken = taken = []  # type: list[tuple[str, str, dict[str, str], int]]

        class Noting(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                taken.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, len(body)))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            do_GET = do_PUT = do_DELETE = do_OPTIONS = do_POST  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Noting)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Front, Behind]]:
    folder = tmp_path_factory.mktemp("nginx")
    coordinator = provisioned(folder, ("a", "b"), coordinator={"addresses": ["127.0.0.1"], "port": 443})
    behind = Behind(*coordinator.server)
    front = Front(folder / "front", coordinator.path, free_port(), behind.port)
    try:
        yield front, behind
    finally:
        front.close()
        behind.close()


def allowed() -> set[str]:
    (words,) = re.findall(r"location ~ \^/v1/fleet/\(\?<call>([a-z|-]+)\)\$", CONFIGURATION.read_text())
    return {f"/v1/fleet/{word}" for word in words.split("|")}


def test_the_configuration_names_the_calls_that_a_site_makes_and_no_other() -> None:
    source = Path(relay.__file__).read_text()
    site = source[source.index("class Site:") : source.index("def main()")]
    calls = set(re.findall(r"\bclient\.([A-Z]\w+)\(", site))
    assert len(calls) == 9
    assert {"/v1/fleet/" + re.sub(r"(?<!^)(?=[A-Z])", "-", call).lower() for call in calls} == allowed()


def test_the_longest_request_is_that_of_the_guard() -> None:
    text = CONFIGURATION.read_text()
    assert f"client_max_body_size {relay.BODY_LIMIT // 2**20}m;" in text
    assert f'proxy_set_header {relay.GUARD} "";' in text


@needs_nginx
def test_what_a_site_calls_passes_without_the_coordinators_header(pair: tuple[Front, Behind]) -> None:
    front, behind = pair
    behind.taken.clear()
    for path in sorted(allowed()):
        assert front.ask(path, b"body", **{relay.GUARD: "1" * 64, "flwr-public-key": "key"}).status == 200
    assert [path for _, path, _, _ in behind.taken] == sorted(allowed())
    for method, _, headers, size in behind.taken:
        assert (method, size, headers["flwr-public-key"]) == ("POST", 4, "key")
        assert relay.GUARD not in headers


@needs_nginx
@pytest.mark.parametrize(
    "path",
    ["/", "/health", "/docs", "/openapi.json", "/v1/control/start-run", "/v1/control/list-runs", "/v1/control/register-node",
     "/v1/control/stream-logs", "/v1/runtime/acquire-task", "/v1/runtime/push-messages", "/v1/runtime/pull-object",
     "/v1/fleet/register-node", "/v1/fleet/unregister-node", "/v1/fleet/get-fab", "/v1/fleet/", "/v1/fleet/pull-messages/",
     "/V1/FLEET/pull-messages", "/v1/fleet/../control/list-runs", "/v1/fleet/%2e%2e/control/list-runs",
     "/v1/fleet/pull-messages/../../control/list-runs", "/v1/fleet/pull-messages%00", "/v1/fleet/pull-messages%2f..%2f..",
     "/v1/control/list-runs?/v1/fleet/pull-messages", "/v1/control/list-runs%3f/v1/fleet/pull-messages"],
)  # fmt: skip
def test_everything_else_is_refused_whoever_has_the_authority_file(pair: tuple[Front, Behind], path: str) -> None:
    front, behind = pair
    behind.taken.clear()
    for method in ("POST", "GET"):
        assert front.ask(path, method=method).status in (400, 404)
        assert front.ask(path, method=method, **{relay.GUARD: "1" * 64}).status in (400, 404)
    assert behind.taken == []


@needs_nginx
@pytest.mark.parametrize(
    "path",
    ["//v1//fleet/pull-messages", "/v1/control/../fleet/pull-messages", "/v1/control/%2e%2e/fleet/pull-messages",
     "/v1/control/list-runs%3f/../../fleet/pull-messages", "/v1/fleet/pull-messages?run=1", "/v1/fleet/%70ull-messages"],
)  # fmt: skip
def test_a_path_in_disguise_arrives_as_the_plain_one(pair: tuple[Front, Behind], path: str) -> None:
    front, behind = pair
    behind.taken.clear()
    assert front.ask(path).status == 200
    assert [path for _, path, _, _ in behind.taken] == ["/v1/fleet/pull-messages"]


@needs_nginx
def test_only_post_passes_and_no_more_than_the_limit(pair: tuple[Front, Behind]) -> None:
    front, behind = pair
    behind.taken.clear()
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        assert front.ask("/v1/fleet/pull-messages", method=method).status == 403
    assert front.ask("/v1/fleet/push-object", b"x" * (relay.BODY_LIMIT + 1)).status == 413
    assert behind.taken == []
    assert front.ask("/v1/fleet/push-object", b"x" * relay.BODY_LIMIT).status == 200
    assert [size for _, _, _, size in behind.taken] == [relay.BODY_LIMIT]
    # no body was written to the disk: `error.log` would tell of a temporary file
    assert "temporary file" not in (front.folder / "error.log").read_text()


@needs_nginx
def test_tls_is_new_and_nginx_does_not_say_which_it_is(pair: tuple[Front, Behind]) -> None:
    front, _ = pair
    assert front.ask("/").getheader("server") == "nginx"
    with socket.create_connection(("127.0.0.1", front.port), 5) as plain:
        plain.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert b" 400 " in plain.recv(200)
    old = ssl.create_default_context(cafile=str(front.authority))
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", front.port), 5) as plain,
        pytest.raises(ssl.SSLError),
        old.wrap_socket(plain, server_hostname="127.0.0.1"),
    ):
        pass
    refused = (front.folder / "wardround.log").read_text()
    assert '"POST / HTTP/1.1" 404' in refused
    assert '" 200 ' not in refused


@needs_nginx
@pytest.mark.long
@pytest.mark.skipif(
    not (Path(DATA) / "uci_heart").is_dir() or flower_python() is None,
    reason="needs an interpreter with flwr (WARDROUND_FLOWER_PYTHON) and uci_heart (WARDROUND_DATA)",
)
def test_four_hospitals_train_through_nginx_and_one_of_them_through_a_proxy(tmp_path: Path) -> None:
    hospitals = Hospitals(tmp_path, DATA, str(flower_python()))
    behind = free_port()
    hospitals.listen = f"127.0.0.1:{behind}"
    front = Front(tmp_path / "front", hospitals.coordinator.path, hospitals.port, behind)
    proxy = Proxy()
    try:
        hospitals.start("coordinator", *SITES[1:])
        hospitals.environment |= {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}", "NO_PROXY": ""}
        hospitals.start(SITES[0])
        name = hospitals.submit(write_job(tmp_path, "fedavg"))
        assert hospitals.outcome(name, 150)["status"] == "done"
        for path in ("/v1/control/list-runs", "/v1/runtime/acquire-task"):
            assert front.ask(path).status == 404
        rounds = hospitals.entries("coordinator", "round")
        assert [entry["counted"] for entry in rounds] == [list(SITES)] * 3
        assert proxy.asked[-1].startswith(f"CONNECT 127.0.0.1:{hospitals.port} ")
    finally:
        hospitals.stop()
        front.close()
        proxy.close()
    assert not hospitals.left()
