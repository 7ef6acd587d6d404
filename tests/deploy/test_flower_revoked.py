"""A site that is put out of a project for good: last among those that share its hospitals."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.hospitals import Hospitals, needs_flower, until
from deploy.test_flower import write_job
from wardround.deploy import operate
from wardround.deploy.enrolling import revoke
from wardround.errors import ConfigError

pytestmark = [pytest.mark.slow, needs_flower]


def test_a_revoked_site_is_refused_by_name(hospitals: Hospitals, tmp_path: Path) -> None:
    revoke(hospitals.coordinator.path, "switzerland")
    job, signer = write_job(tmp_path, "fedavg"), hospitals.folder / "lee"
    with pytest.raises(ConfigError, match="switzerland"):
        operate.submit(job, hospitals.coordinator.path, signer=signer, sites=("switzerland", "va"))
    until(lambda: hospitals.status("switzerland").get("connected") is False, 60, "its connection is ended")
