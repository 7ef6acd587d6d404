"""Figures of a site's own rows as they leave it: once a model and run, less what its policy keeps, and noted.

A coordinator that could ask again with another model or threshold would have an oracle over the site's rows. So the first
question about a model is kept in the run's folder, and only the same one is answered again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from wardround.deploy import canonical
from wardround.deploy.audit import AuditLog
from wardround.deploy.policy import SitePolicy
from wardround.errors import Refused, RunError
from wardround.federation.by_site import Judged, SiteFigures
from wardround.store import atomic

ASKED = "figures-asked.json"


class SiteRelease:
    """The door for figures of one run.

    Args:
        run: its id.
        folder: of the run at this site.
        policy: reads the site's policy as it stands.
        log: where each release is noted.
    """

    def __init__(self, run: str, folder: Path, policy: Callable[[], SitePolicy], log: AuditLog) -> None:
        self._run, self._path, self._policy, self._log = run, folder / ASKED, policy, log

    def __call__(self, model: str, asked: str, found: SiteFigures, judged: Judged) -> SiteFigures:
        """What leaves.

        Args:
            model: which one's figures.
            asked: SHA-256 of the question.
            found: all figures.
            judged: the scores that they come of.

        Raises:
            Refused: the policy keeps them, or another question about this model was answered before.
        """
        release = self._policy().release
        if not release.site_figures:
            raise Refused("release.site_figures is false: figures of this site leave in sums alone")
        first = self._first()
        if first.setdefault(model, asked) != asked:
            raise Refused(f"figures of the model {model} were asked for once in this run, and this is another question")
        atomic.write_json(self._path, first)
        shown = release.let_go(found, judged)
        body = canonical.encode(shown.to_json())
        # the log first: what is not noted does not leave
        self._log.append(
            "figures-released", run=self._run, what=model, digest=hashlib.sha256(body).hexdigest(), bytes=len(body)
        )
        return shown

    def _first(self) -> dict[str, str]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunError(f"{self._path} is damaged: {error}; no figures of this run leave any more") from error
        if not isinstance(found, dict):
            raise RunError(f"{self._path} is damaged; no figures of this run leave any more")
        return found
