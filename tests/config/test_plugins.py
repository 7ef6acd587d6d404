"""Names of tables and plug-ins: found, or refused with what is known."""

from __future__ import annotations

import pytest

from wardround.config.plugins import construct, load_object, resolve
from wardround.errors import ConfigError

TABLE = {"ordered": "collections:OrderedDict", "counted": "collections:Counter"}


def test_a_name_of_the_table_and_a_plug_in_are_found() -> None:
    from collections import Counter, OrderedDict

    assert resolve("ordered", TABLE, "x.name") is OrderedDict
    assert resolve("collections:Counter", TABLE, "x.name") is Counter


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("orderd", ("x.name = 'orderd'", "did you mean 'ordered'", "counted", "'module:Class'")),
        ("zzz", ("x.name = 'zzz'", "known: counted, ordered")),
        ("no_such_module:A", ("'no_such_module' cannot be imported", "ModuleNotFoundError", "PYTHONPATH")),
        ("collections:Ordered", ("'collections' has no 'Ordered'",)),
        ("collections:", ("expected 'module:Class'",)),
        (":Counter", ("expected 'module:Class'",)),
    ],
)
def test_what_is_not_there_is_refused(name: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(name, TABLE, "x.name")
    for word in words:
        assert word in str(refused.value)


def test_options_must_fit() -> None:
    assert construct(complex, {"real": 1, "imag": 2}, "x.options") == 1 + 2j
    with pytest.raises(ConfigError, match=r"x\.options: the options .*'reel'.* do not fit"):
        construct(complex, {"reel": 1}, "x.options")


def test_every_built_in_name_can_be_imported() -> None:
    from wardround.aggregation.registry import RULES
    from wardround.algorithms.registry import LOCAL_RULES, SERVER_RULES
    from wardround.channels.registry import CHANNELS
    from wardround.data.registry import DATASETS
    from wardround.experiment import ENGINES
    from wardround.models.registry import MODELS

    for table in (RULES, LOCAL_RULES, SERVER_RULES, CHANNELS, DATASETS, ENGINES, MODELS):
        assert table
        for reference in table.values():
            assert callable(load_object(reference, "test"))
