"""Four hospitals as processes, begun once for all tests that need them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from deploy.hospitals import DATA, PYTHON, SITES, Cable, Hospitals, free_port

SHARING = ("test_flower.py", "test_flower_faults.py", "test_flower_figures.py", "test_flower_revoked.py")
"""Files whose tests take `hospitals`, in this order."""


@pytest.fixture(scope="package")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    made = Hospitals(tmp_path_factory.mktemp("hospitals"), DATA, str(PYTHON))
    inner = free_port()
    made.listen, made.cable = f"127.0.0.1:{inner}", Cable(made.port, inner)
    made.start("coordinator", *SITES)
    try:
        made.online()
        yield made
    finally:
        made.stop()
        made.cable.close()
    assert not made.left()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As `--dist loadfile`, but files that share their hospitals go to one worker: ten processes are begun once."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Sharing(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "hospitals" if file.rsplit("/", 1)[-1] in SHARING else file

    return Sharing(config, log)
