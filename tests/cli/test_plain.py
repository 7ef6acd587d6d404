"""What came from elsewhere, on a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.parties import enrolled
from wardround.cli.exit import guarded
from wardround.cli.operate import logs, status
from wardround.cli.trust import log_show, log_verify
from wardround.deploy import audit, canonical
from wardround.plain import plain, plain_lines

FORGED = "HTTP 500: \x1b[2J\x1b[H\x1b]0;owned\x07\x1b[32mva: running, connected\x1b[0m\r\n  connected\u202e\x9b"


def clean(text: str) -> bool:
    return all(c.isprintable() or c in "\n\t" for c in text)


def test_no_control_character_is_left() -> None:
    assert plain("a\tb") == "a\tb"
    assert plain("a\nb\rc\x1b[0m") == "a?b?c?[0m"
    assert plain_lines("a\nb\r") == "a\nb?"
    assert clean(plain(FORGED))
    assert "\n" not in plain(FORGED)


def test_status_logs_and_the_audit_log_are_shown_plain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    party = enrolled(tmp_path, ("cork", "oslo", "va")).sites["va"]
    state = party.path / "state"
    state.mkdir(exist_ok=True)
    (state / "status.json").write_text(
        json.dumps({"site": "va", "doing": "waiting", "cause": FORGED, "connected": False})
    )
    (state / "relay.log").write_text(FORGED + "\n")
    status(party.path)
    assert "va: running, connected" not in capsys.readouterr().out.splitlines()
    status(party.path)
    logs(party.path)
    rows = party.audit_path.read_text().splitlines()
    last = json.loads(rows[-1])
    entry = {"n": last["n"] + 1, "time": last["time"], "kind": "round", "before": last["hash"], "run": FORGED}
    entry["hash"] = audit.entry_hash(entry)
    party.audit_path.write_bytes(party.audit_path.read_bytes() + canonical.encode(entry) + b"\n")
    log_show(party.path, 1, None, False)
    assert guarded(lambda *_, **__: log_verify(party.path, None, False), []) == 6
    out = capsys.readouterr()
    assert clean(out.out)
    assert clean(out.err)
    assert "form: entry" in out.out
    assert "none that this version writes" in out.out


def test_an_error_is_shown_plain(capsys: pytest.CaptureFixture[str]) -> None:
    from wardround.errors import MessageError

    def fail(*_: object, **__: object) -> None:
        raise MessageError(FORGED)

    guarded(fail, [])
    assert clean(capsys.readouterr().err)
