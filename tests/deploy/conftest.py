"""Four hospitals as processes, begun once for all tests that need them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.hospitals import DATA, PYTHON, SITES, Cable, Hospitals, free_port


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
