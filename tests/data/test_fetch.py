"""Files are got from a folder, an archive or a server, resumed, verified, and never half there."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from wardround.data.fetch import SUMS, fetch, look
from wardround.data.registry import DATASETS
from wardround.data.sources import SOURCES, Download, File, Source
from wardround.errors import DataError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What the server on 127.0.0.1 hands out, how it misbehaves, and what it was asked."""

    content: bytes = CONTENT
    tag: str = '"one"'
    cut: list[int] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    ranges: bool = True
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def url(self, name: str = "table.csv") -> str:
        return f"http://127.0.0.1:{self.port}/{name}"


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            state.asked.append(wanted)
            if state.errors:
                self.send_error(state.errors.pop(0))
                return
            start = 0
            if wanted and state.ranges and self.headers.get("If-Range") == state.tag:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            self.send_header("Content-Length", str(len(state.content) - start))
            self.send_header("ETag", state.tag)
            self.end_headers()
            end = start + state.cut.pop(0) if state.cut else len(state.content)
            self.wfile.write(state.content[start:end])

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state.port = running.server_address[1]
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        running.shutdown()
        thread.join()


def source(url: str, *, sha256: str | None = DIGEST, member: str = "", archive_sha256: str | None = None) -> Source:
    download = Download(url=url, sha256=archive_sha256 if member else sha256)
    file = File(name="table.csv", download=download, sha256=sha256, member=member)
    return Source(title="t", folder="set", page="https://example.org", licence="l", citation="c", files=(file,))


def got(wanted: Source, root: Path, **options: Any) -> list[str]:
    return [found.state for found in fetch(wanted, root, pause=lambda seconds: None, **options)]


def names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "set").iterdir())


def test_a_file_comes_whole_and_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    assert got(source(server.url()), tmp_path, progress=lambda *told: seen.append(told)) == ["verified"]
    assert (tmp_path / "set" / "table.csv").read_bytes() == CONTENT
    assert names(tmp_path) == ["table.csv"]
    assert seen[-1] == ("table.csv", len(CONTENT), len(CONTENT))
    assert got(source(server.url()), tmp_path) == ["verified"]
    assert server.asked == [""]


def test_a_broken_connection_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.cut = [300_000, 400_000]
    assert got(source(server.url()), tmp_path) == ["verified"]
    assert server.asked == ["", "bytes=300000-", "bytes=700000-"]
    assert (tmp_path / "set" / "table.csv").read_bytes() == CONTENT


def test_a_second_command_goes_on_too(server: Server, tmp_path: Path) -> None:
    server.cut = [1000] * 4
    with pytest.raises(DataError, match=r"broke off after 4000 bytes.* run the same command"):
        got(source(server.url()), tmp_path)
    assert not (tmp_path / "set" / "table.csv").exists()
    assert got(source(server.url()), tmp_path) == ["verified"]
    assert server.asked[-1] == "bytes=4000-"


@pytest.mark.parametrize("change", ["tag", "no ranges"])
def test_what_cannot_be_continued_begins_anew(change: str, server: Server, tmp_path: Path) -> None:
    server.cut = [1000] * 4
    with pytest.raises(DataError, match="broke off"):
        got(source(server.url()), tmp_path)
    if change == "tag":
        server.tag = '"two"'
        server.content = CONTENT[::-1]
    else:
        server.ranges = False
    digest = hashlib.sha256(server.content).hexdigest()
    assert got(source(server.url(), sha256=digest), tmp_path) == ["verified"]
    assert (tmp_path / "set" / "table.csv").read_bytes() == server.content


def test_a_busy_server_is_asked_again_and_an_absent_file_is_not(server: Server, tmp_path: Path) -> None:
    server.errors = [503, 429]
    assert got(source(server.url()), tmp_path) == ["verified"]
    server.errors = [404]
    with pytest.raises(DataError, match="404 Not Found: has the file moved"):
        got(source(server.url()), tmp_path / "other")
    assert len(server.asked) == 4


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be reached .* in 4 attempts"):
        got(source("http://127.0.0.1:9/table.csv"), tmp_path)


def test_a_changed_file_is_refused_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT + b"x"
    with pytest.raises(DataError, match=f"not the official file: its SHA-256 is .* expected {DIGEST}"):
        got(source(server.url()), tmp_path)
    assert names(tmp_path) == []


def test_only_the_web_is_an_address(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="begins with https"):
        got(source(f"file://{tmp_path}/table.csv"), tmp_path)


def test_without_a_known_checksum_somebody_must_accept_it(server: Server, tmp_path: Path) -> None:
    unknown = source(server.url(), sha256=None)
    with pytest.raises(DataError, match=f"no checksum of the official file is known.*--accept {DIGEST}"):
        got(unknown, tmp_path)
    assert not (tmp_path / "set" / "table.csv").exists()
    shown = []

    def accept(name: str, size: int, sha256: str) -> bool:
        shown.append((name, size, sha256))
        return True

    # it is not downloaded again for that
    assert got(unknown, tmp_path, accept=accept) == ["verified"]
    assert server.asked == [""]
    assert shown == [("table.csv", len(CONTENT), DIGEST)]
    assert (tmp_path / "set" / SUMS).read_text() == f"{DIGEST}  table.csv\n"
    (tmp_path / "set" / "table.csv").write_bytes(b"other")
    assert [found.state for found in look(unknown, tmp_path)] == ["differs"]


def test_a_file_that_differs_is_kept_unless_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "table.csv"
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"not the official file.*--overwrite"):
        got(source(server.url()), tmp_path)
    assert path.read_bytes() == b"mine"
    assert got(source(server.url()), tmp_path, overwrite=True) == ["verified"]
    assert path.read_bytes() == CONTENT


def pack(path: Path, *members: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, CONTENT)
    return path


def test_one_file_of_an_archive_is_unpacked_and_nothing_else(server: Server, tmp_path: Path) -> None:
    path = pack(tmp_path / "all.zip", "deep/table.csv", "__MACOSX/deep/table.csv", "../../evil.txt", "/etc/other")
    server.content = path.read_bytes()
    assert got(source(server.url("all.zip"), member="table.csv"), tmp_path / "root") == ["verified"]
    assert names(tmp_path / "root") == ["table.csv"]
    assert not (tmp_path.parent / "evil.txt").exists()


@pytest.mark.parametrize(("members", "found"), [((), 0), (("a/table.csv", "b/table.csv"), 2)])
def test_an_archive_must_hold_the_file_once(members: tuple[str, ...], found: int, tmp_path: Path) -> None:
    folder = tmp_path / "down"
    folder.mkdir()
    pack(folder / "all.zip", "else.txt", *members)
    with pytest.raises(DataError, match=f"holds {found} files called table.csv"):
        got(source("http://127.0.0.1:9/all.zip", member="table.csv"), tmp_path / "root", folder=folder)


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("table.csv")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="expected one plain file"):
        got(source("http://127.0.0.1:9/all.zip", member="table.csv"), tmp_path / "root", folder=tmp_path)


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match=r"all\.zip cannot be unpacked"):
        got(source("http://127.0.0.1:9/all.zip", member="table.csv"), tmp_path / "root", folder=tmp_path)


@pytest.mark.parametrize("where", ["table.csv", "set/table.csv"])
def test_files_are_taken_from_a_folder(where: str, tmp_path: Path) -> None:
    path = tmp_path / "down" / where
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    wanted = source("http://127.0.0.1:9/all.zip", member="table.csv")
    assert got(wanted, tmp_path / "root", folder=tmp_path / "down") == ["verified"]
    assert path.exists()


def test_a_folder_without_the_file_or_with_another(tmp_path: Path) -> None:
    wanted = source("http://127.0.0.1:9/all.zip", member="table.csv")
    with pytest.raises(DataError, match=r"neither table\.csv nor all\.zip"):
        got(wanted, tmp_path / "root", folder=tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        got(wanted, tmp_path / "root", folder=tmp_path / "nowhere")
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "table.csv").write_bytes(b"other")
    with pytest.raises(DataError, match="not the official file"):
        got(wanted, tmp_path / "root", folder=tmp_path / "down")
    assert names(tmp_path / "root") == []


def test_several_files_one_archive_one_download(server: Server, tmp_path: Path) -> None:
    server.content = pack(tmp_path / "all.zip", "table.csv", "more.csv").read_bytes()
    one = source(server.url("all.zip"), member="table.csv")
    both = replace(one, files=(one.files[0], replace(one.files[0], name="more.csv", member="more.csv")))
    assert got(both, tmp_path / "root") == ["verified", "verified"]
    assert server.asked == [""]
    assert names(tmp_path / "root") == ["more.csv", "table.csv"]


def test_an_md5_is_enough_where_the_publisher_gives_no_more(server: Server, tmp_path: Path) -> None:
    wanted = source(server.url(), sha256=None)
    file = replace(wanted.files[0], md5=hashlib.md5(CONTENT).hexdigest())
    assert got(replace(wanted, files=(file,)), tmp_path) == ["verified"]
    wrong = replace(wanted, files=(replace(file, md5="0" * 32),))
    with pytest.raises(DataError, match=f"not the official file.*{'0' * 32}"):
        got(wrong, tmp_path)
    with pytest.raises(DataError, match="not the official file: its MD5 is"):
        got(wrong, tmp_path / "other")


def test_of_a_choice_only_what_is_named_is_fetched(server: Server, tmp_path: Path) -> None:
    one = source(server.url())
    both = replace(one, files=(one.files[0], replace(one.files[0], name="more.csv")), choice=True)
    assert look(both, tmp_path) == []
    with pytest.raises(DataError, match=r"has 2 files: name those you want, such as --only table\.csv"):
        got(both, tmp_path)
    with pytest.raises(DataError, match=r"--only tabel\.csv.*did you mean table\.csv"):
        got(both, tmp_path, only=["tabel.csv"])
    assert got(both, tmp_path, only=["more.csv"]) == ["verified"]
    assert names(tmp_path) == ["more.csv"]


def test_the_table_of_sources_is_sound() -> None:
    assert set(SOURCES) == set(DATASETS) - {"custom", "images"}
    for name, wanted in SOURCES.items():
        assert wanted.licence, name
        assert wanted.citation, name
        for file in wanted.files:
            assert file.download.url.startswith("https://")
            for digest in (file.sha256, file.download.sha256):
                assert digest is None or (len(digest) == 64 and set(digest) <= set("0123456789abcdef"))
            assert "/" not in file.name
            assert bool(file.member) == file.download.name.endswith(".zip")
            assert file.md5 is None or (len(file.md5) == 32 and set(file.md5) <= set("0123456789abcdef"))
        for tree in wanted.trees:
            assert tree.holds
            assert bool(tree.kaggle) != bool(tree.download)
