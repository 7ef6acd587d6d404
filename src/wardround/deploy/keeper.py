"""A process in the background that is begun again when it dies, with longer and longer waits: `start --detach`, without systemd.

It holds nothing and imports next to nothing. DIR/state/keeper.json says what it does. It ends with what it keeps where that
ended by itself, or with an error that no further start would mend.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wardround.errors import INTERRUPTED, ConfigError, DataError, IdentityError, Refused, RunError
from wardround.store import atomic

FILE, LOG = "keeper.json", "process.log"
FIRST, LONGEST, STEADY = 0.5, 30.0, 30.0
"""Seconds: the first wait, the longest one, and how long a process lives that is waited for anew as the first time."""
FINAL = frozenset(kind.exit_code for kind in (ConfigError, DataError, Refused, RunError, IdentityError))
"""Exit codes after which it is not begun again: another start would end as this one did."""
_LAST = 4096


class Keeper:
    """Keeps one process.

    Args:
        state: folder for what it says, which is there.
        command: the process.
    """

    def __init__(self, state: Path, command: Sequence[str]) -> None:
        self._state, self._command = state, list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping, self._restarts, self._cause = False, 0, ""

    def run(self) -> None:
        """Keep it until SIGTERM or SIGINT, which end it too, or until it has ended for good."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)
        wait = FIRST
        while not self._stopping:
            began = time.monotonic()
            try:
                code = self._live()
                self._cause = self._why(code)
            except OSError as error:
                code, self._cause = -1, f"could not be started: {error.strerror or error}"
            if self._stopping:
                break
            if code in (0, INTERRUPTED):
                self._tell("ended")
                return
            if code in FINAL:
                self._tell("failed")
                return
            wait = FIRST if time.monotonic() - began > STEADY else min(2 * wait, LONGEST)
            self._restarts += 1
            self._tell("waiting")
            self._sleep(wait * random.uniform(0.8, 1.2))
        self._tell("stopped")

    def _live(self) -> int:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        if self._stopping:  # between the last look and the start
            self._process.terminate()
        self._tell("running")
        return self._process.wait()

    def _stop(self, *_: object) -> None:
        self._stopping = True
        if self._process is not None:
            self._process.terminate()

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < end:
            time.sleep(0.1)

    def _why(self, code: int) -> str:
        if code in (0, INTERRUPTED):
            return ""
        if code < 0:
            hint = ": out of memory, perhaps" if code == -signal.SIGKILL else ""
            return f"killed by signal {-code} ({signal.strsignal(-code) or '?'}){hint}"
        return f"ended with code {code}: {last_line(self._state / LOG)}"

    def _tell(self, status: str) -> None:
        atomic.write_json(
            self._state / FILE,
            {
                "pid": os.getpid(), "status": status, "restarts": self._restarts, "cause": self._cause,
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )  # fmt: skip


def last_line(log: Path) -> str:
    """The last line of a log, at most 300 characters."""
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, 2) - _LAST, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"{log} cannot be read: {error.strerror or error}"
    return (lines or ["(nothing)"])[-1][:300]


def told(state: Path) -> dict[str, Any] | None:
    """What a keeper says, and `alive`, whether it is there; None where there never was one."""
    try:
        found = json.loads((state / FILE).read_text(encoding="utf-8"))
        pid = found["pid"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {**found, "alive": type(pid) is int and is_ours(pid)}


def is_ours(pid: int) -> bool:
    """Whether a process of this package has a number, which may have gone to somebody else since."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    try:
        return b"wardround" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


if __name__ == "__main__":
    Keeper(Path(sys.argv[1]), [sys.executable, "-m", "wardround", *sys.argv[2:]]).run()
