"""Numbers for Prometheus, as a file that node_exporter's textfile collector takes: no port is opened.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import threading
from pathlib import Path

from wardround.store import atomic

_HELP = {
    "round": ("gauge", "Rounds completed by the present run."),
    "rounds_total": ("counter", "Rounds completed since the start."),
    "runs_total": ("counter", "Runs that ended, by status."),
    "retries_total": ("counter", "Rounds tried again."),
    "sites_counted": ("gauge", "Sites in the last round's sum."),
    "bytes_up": ("gauge", "Bytes from sites in the present run."),
    "bytes_down": ("gauge", "Bytes to sites in the present run."),
    "site_online": ("gauge", "Whether a site is connected."),
    "connected": ("gauge", "Whether the coordinator reaches its SuperLink."),
    "restarts_total": ("counter", "Processes begun again, by kind."),
    "refused_total": ("counter", "Connections that the guard refused."),
    "site_events_total": ("counter", "What went wrong with a site."),
}


class Metrics:
    """A process's numbers.

    Args:
        path: the file, replaced at each `write`.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def put(self, name: str, value: float, **labels: str) -> None:
        """Set a number."""
        with self._lock:
            self._values[name, tuple(sorted(labels.items()))] = float(value)

    def add(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Count."""
        with self._lock:
            key = name, tuple(sorted(labels.items()))
            self._values[key] = self._values.get(key, 0.0) + value

    def text(self) -> str:
        """All numbers in the exposition format."""
        lines = []
        with self._lock:
            known = sorted(self._values.items())
        for name in sorted({key[0] for key, _ in known}):
            kind, text = _HELP[name]
            lines += [f"# HELP wardround_{name} {text}", f"# TYPE wardround_{name} {kind}"]
            for (other, labels), value in known:
                if other == name:
                    inside = ",".join(f'{k}="{_escaped(v)}"' for k, v in labels)
                    lines.append(f"wardround_{name}{'{' + inside + '}' if inside else ''} {value:g}")
        return "\n".join(lines) + "\n"

    def write(self) -> None:
        """Replace the file."""
        atomic.write_text(self._path, self.text())


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
