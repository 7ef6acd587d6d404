"""How far a run is, from the audit log, and how a terminal shows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from wardround.cli.operate import _lines
from wardround.deploy.audit import AuditLog
from wardround.deploy.progress import Progress

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = "heart-0123456789abcdef"


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "audit.jsonl", None)


def round_(log: AuditLog, index: int, at: float, missing: tuple[str, ...] = (), **facts: Any) -> None:
    asked = ["bern", "cork", "oslo"]
    counted = [site for site in asked if site not in missing]
    log.append(
        "round", run=facts.pop("run", RUN), round=index, asked=asked, counted=counted, missing=list(missing),
        now=NOW + timedelta(seconds=at), **facts,
    )  # fmt: skip


def message(log: AuditLog, kind: str, site: str, size: int, run: str = RUN, at: float = 0.0) -> None:
    who = "recipient" if kind == "message-sent" else "sender"
    log.append(kind, run=run, number=1, what="ask", bytes=size, now=NOW + timedelta(seconds=at), **{who: site})


def test_rounds_and_bytes_are_counted_by_site_and_other_runs_are_not(log: AuditLog) -> None:
    progress = Progress(log)
    progress.begin(RUN)
    log.append("run-started", run=RUN, job=RUN, digest="0" * 64)
    message(log, "message-sent", "bern", 100)
    message(log, "message-received", "bern", 30, at=5)
    message(log, "message-received", "bern", 7, run="other-0123456789abcdef")
    round_(log, 0, 10, missing=("oslo",))
    progress.look()
    message(log, "message-sent", "bern", 11)
    round_(log, 1, 14)
    round_(log, 1, 15)  # it came again after a crash
    round_(log, 2, 20, missing=("cork", "oslo"))
    round_(log, 2, 20, run="other-0123456789abcdef")
    progress.look()
    found = progress.parts()
    assert found["bern"] == {"counted": 3, "missed": 0, "up": 30, "down": 111, "heard": "2026-03-01T12:00:05.000+00:00"}
    assert [(found[site]["counted"], found[site]["missed"]) for site in ("cork", "oslo")] == [(2, 1), (1, 2)]
    again = Progress(log)  # another process
    again.begin(RUN)
    again.look()
    assert again.parts() == found
    progress.begin(None)
    progress.look()
    assert progress.parts() == {}


def test_the_time_of_a_round_is_the_mean_of_the_last_ones_without_what_lay_between(log: AuditLog) -> None:
    progress = Progress(log)
    progress.begin(RUN)
    log.append("run-started", run=RUN, job=RUN, digest="0" * 64)
    round_(log, 0, 0)
    progress.look()
    assert progress.seconds is None
    for index in range(1, 15):
        round_(log, index, 2.0 * index if index < 5 else 8 + 3.0 * (index - 4))
    progress.look()
    assert progress.seconds == 3.0  # ten rounds of three seconds; those of two are too long ago
    log.append("run-started", run=RUN, job=RUN, digest="0" * 64)  # after a day, say
    round_(log, 15, 90_000)
    progress.look()
    assert progress.seconds is None
    round_(log, 16, 90_005)
    round_(log, 0, 90_006, what="local")
    round_(log, 1, 90_008, what="local")
    progress.look()
    assert progress.seconds == 2.0
    assert progress.parts()["bern"]["counted"] == 17  # of the federation alone


FOUND: dict[str, Any] = {
    "coordinator": "coordinator", "running": True, "connected": True, "time": "2026-03-01T12:00:00+00:00", "run": RUN,
    "phase": "training", "round": 7, "rounds": 20, "waiting": ["oslo"], "seconds_a_round": 12.34, "seconds_left": 160.4,
    "sites": {"bern": "online", "oslo": "offline", "a" * 64: "unknown"}, "seen": {"oslo": "2026-03-01T11:57:00+00:00"},
    "parts": {
        "bern": {"counted": 7, "missed": 0, "up": 1_234_567, "down": 999, "heard": ""},
        "oslo": {"counted": 5, "missed": 2, "up": 2_500_000_000, "down": 12_345, "heard": ""},
    },
    "restarts": {"superlink": 0, "coordinator": 2}, "inbox": ["next-0123456789abcdef"], "runs": {"old-1": "failed"},
    "cause": "no\x1b[2Jway", "keeper": None,
}  # fmt: skip


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_it_all_and_no_wider_than_it_is(width: int) -> None:
    lines = _lines(FOUND, width, NOW)
    assert max(map(len, lines)) <= width
    said = "\n".join(lines)
    for words in (
        "coordinator: running, connected", "training, round 7 of 20, 12 s a round, about 3 min left", "waiting for oslo",
        "begun again: coordinator 2", "in the inbox: next-", "old-1: failed", "no?[2Jway",
    ):  # fmt: skip
        assert words in said
    rows = {line.split()[0]: line.split() for line in lines if line.startswith("  ") and line.split()}
    assert rows["site"] == ["site", "state", "seen", "counted", "missed", "up", "down"]
    assert rows["bern"] == ["bern", "online", "now", "7", "0", "1.2", "MB", "999", "B"]
    assert rows["oslo"] == ["oslo", "offline", "3", "min", "ago", "5", "2", "2.5", "GB", "12.3", "kB"]
    (cut,) = [name for name in rows if name.startswith("aaa")]
    assert cut.endswith("...") or len(cut) == 64


def test_a_site_and_an_idle_coordinator_are_shown_without_what_they_do_not_have() -> None:
    idle = {
        **FOUND,
        "run": None,
        "parts": {},
        "waiting": [],
        "keeper": {"alive": True, "status": "running", "restarts": 0},
    }
    lines = _lines(idle, 80, NOW)
    assert "  in the background: a keeper begins it again when it dies" in lines
    assert not any("round 7" in line or "counted" in line for line in lines)
    site = {
        "site": "bern", "running": False, "connected": False, "time": "2026-03-01T12:00:00+00:00", "doing": "stopped",
        "run": None, "answered": 3, "cause": "", "relay_restarts": 0, "runs": {},
        "keeper": {"alive": False, "status": "failed", "restarts": 0, "cause": "ended with code 2: error: site.yaml"},
    }  # fmt: skip
    assert _lines(site, 80, NOW) == [
        "bern: not running, 2026-03-01T12:00:00+00:00", "  it ended with code 2: error: site.yaml",
        "  no further start would mend that: see to it, then start it", "  stopped, 3 requests answered since the start",
    ]  # fmt: skip
    assert _lines({"running": False, "keeper": None, "runs": {}}, 80, NOW) == ["?: not running, never started"]
