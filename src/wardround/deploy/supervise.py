"""A child process that is kept alive: begun again whenever it dies, with longer and longer waits, and never left behind.

The child talks over its standard input and output, in frames; it ends when its input does, so a parent that is killed leaves
no process either.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from wardround.errors import ConfigError
from wardround.federation.engines.flower import relay
from wardround.federation.engines.flower.relay import Frame, Pipe

INTERPRETER = "WARDROUND_FLOWER_PYTHON"
"""Environment variable with the interpreter that has flwr, where it is not this one."""
_FIRST, _LONGEST, _STEADY = 0.5, 30.0, 30.0
_TERM = 5.0
LOG_LIMIT = 8 * 2**20
"""Bytes of a child's log, after which it is set aside as NAME.log.1, whose earlier content goes: strangers may fill it."""
_LINE = 8192


def interpreter() -> str:
    """The interpreter that runs Flower.

    Raises:
        ConfigError: neither this one nor the one that the environment names has flwr.
    """
    named = os.environ.get(INTERPRETER)
    if named:
        if not Path(named).is_file():
            raise ConfigError(f"{INTERPRETER} = {named!r}: there is no such interpreter")
        return named
    from importlib.util import find_spec

    if find_spec("flwr") is None:
        raise ConfigError(
            'flwr is not installed, and this needs it: pip install "wardround[flower]", or, in an environment of its own, '
            f"`pip install flwr==1.41.0`, and name its python in {INTERPRETER}"
        )
    return sys.executable


class Child:
    """One supervised relay process.

    Args:
        kind: `superlink`, `coordinator` or `site`.
        options: what it is told at its start, anew each time.
        home: its working folder, Flower's home.
        log: file that takes what it prints, of at most LOG_LIMIT bytes, beside an earlier one.
        take: called with each frame, from a thread.
    """

    def __init__(
        self,
        kind: str,
        options: Callable[[], Mapping[str, Any]],
        *,
        home: Path,
        log: Path,
        take: Callable[[Frame], None],
    ) -> None:
        self.kind, self.restarts = kind, -1
        self._options, self._home, self._log, self._take = options, home, log, take
        self._python = interpreter()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Pipe | None = None
        self._stop, self._writing = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"supervise-{kind}", daemon=True)

    def start(self) -> None:
        """Begin it."""
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def send(self, head: dict[str, Any], payload: bytes = b"") -> bool:
        """Hand it a frame; False where it is not running."""
        pipe = self._pipe
        if pipe is None:
            return False
        try:
            pipe.send(head, payload)
        except (OSError, ValueError):
            return False
        return True

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        self._stop.set()
        process = self._process
        if process is not None:
            _end(process)
        self._thread.join(_TERM + 5)

    def kick(self) -> None:
        """End the process that runs now; it is begun again."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()

    def _run(self) -> None:
        wait = _FIRST
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._live()
            except OSError as error:
                self._note(f"{self.kind} could not be started: {error}")
            if self._stop.is_set():
                return
            wait = _FIRST if time.monotonic() - began > _STEADY else min(2 * wait, _LONGEST)
            self._take(({"op": "ended", "kind": self.kind, "restarts": self.restarts}, b""))
            self._stop.wait(wait * random.uniform(0.8, 1.2))

    def _live(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        environment = _environment(self.kind, self._home)
        process = subprocess.Popen(
            [self._python, "-P", str(Path(relay.__file__)), self.kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=environment, cwd=self._home, start_new_session=True,
        )  # fmt: skip
        self._process = process
        self.restarts += 1
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise OSError("no pipes")
        errors: BinaryIO = process.stderr  # type: ignore[assignment]
        reader = threading.Thread(target=self._keep, args=(errors,), name=f"log-{self.kind}", daemon=True)
        reader.start()
        source: BinaryIO = process.stdout  # type: ignore[assignment]
        sink: BinaryIO = process.stdin  # type: ignore[assignment]
        try:
            if self.kind == "superlink":
                sink.write(json.dumps(dict(self._options())).encode() + b"\n")
                sink.flush()
                for line in source:
                    self._take(({"op": "guard", **json.loads(line)}, b""))
            else:
                pipe = Pipe(source, sink)
                pipe.send(dict(self._options()))
                self._pipe = pipe
                while (frame := pipe.receive()) is not None:
                    self._take(frame)
        except (OSError, ValueError) as error:
            self._note(f"{self.kind}: its pipe broke: {error}")
        finally:
            self._pipe = None
            _end(process)
            reader.join(_TERM)

    def _keep(self, errors: BinaryIO) -> None:
        """What the child prints goes to its log, until it ends; on a full disk it goes nowhere, and the child lives on."""
        with errors:
            while line := errors.readline(_LINE):
                with contextlib.suppress(OSError):
                    self._write(line)

    def _note(self, text: str) -> None:
        self._write((json.dumps({"event": "supervisor", "text": text}) + "\n").encode())

    def _write(self, line: bytes) -> None:
        with self._writing:
            with contextlib.suppress(FileNotFoundError):
                if self._log.stat().st_size + len(line) > LOG_LIMIT:
                    self._log.replace(self._log.with_name(f"{self._log.name}.1"))
            with self._log.open("ab") as log:
                log.write(line)


def _environment(kind: str, home: Path) -> dict[str, str]:
    """What a child sees. A site's relay takes the proxy that this process was given; the others stay on this machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "FLWR_"))}
    if kind != "site":
        # with a no_proxy of its own, a system's settings are not asked either
        kept = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")} | {"no_proxy": "*"}
    return kept | {
        "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_LOG_LEVEL": "WARNING",
        "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close its input, ask it to end, then make it."""
    steps: tuple[Callable[[], None], ...] = (
        process.stdin.close if process.stdin is not None else process.terminate, process.terminate, process.kill,
    )  # fmt: skip
    for step in steps:
        try:
            step()
            process.wait(_TERM)
        except subprocess.TimeoutExpired:
            continue
        except OSError:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return


class Events:
    """A queue of what children bring, as the engine's post.

    Args:
        child: the coordinator's relay; set once it exists.
    """

    def __init__(self) -> None:
        self.child: Child | None = None
        self._queue: queue.Queue[Frame] = queue.Queue()

    def put(self, frame: Frame) -> None:
        """Add what came."""
        self._queue.put(frame)

    def get(self, timeout: float) -> Frame | None:
        """The oldest, or None after `timeout` seconds."""
        try:
            return self._queue.get(timeout=max(timeout, 0.0))
        except queue.Empty:
            return None
