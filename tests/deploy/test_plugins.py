"""Plug-ins between hospitals: what is hashed is what runs, at a site and at the coordinator."""

from __future__ import annotations

import hashlib
import os
import py_compile
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.parties import SUBMITTER, enrolled
from wardround.config import plugins
from wardround.config.load import from_mapping
from wardround.config.plugins import resolve
from wardround.deploy import operate
from wardround.deploy.jobs import approved_plugins, check_plugins, plugin_source, read_approved, sign_job
from wardround.deploy.kit import open_folder
from wardround.errors import ConfigError, Refused

GOOD = 'class Net:\n    """The one that was read."""\n    word = "good"\n'
BAD = GOOD.replace("good", "bad").replace("class", 'import os; os.environ["PLUGIN_RAN"] = "bad"\nclass')
NAME = "hospital_nets"
REFERENCE = f"{NAME}:Net"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("PLUGIN_RAN", raising=False)
    monkeypatch.setattr(plugins, "_LOADED", {})
    yield
    sys.modules.pop(NAME, None)
    os.environ.pop("PLUGIN_RAN", None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "plugins"
    made.mkdir()
    (made / f"{NAME}.py").write_text(GOOD)
    return made


def loaded(folder: Path, approved: dict[str, str], reference: str = REFERENCE) -> Any:
    with approved_plugins(folder, lambda: approved):
        return resolve(reference, {}, "model.name")


def test_an_approved_file_runs_although_no_path_leads_to_it(folder: Path) -> None:
    assert str(folder) not in sys.path
    found = loaded(folder, {REFERENCE: digest(GOOD)})
    assert found.word == "good"
    assert found.__module__ == NAME
    assert plugins.digest(REFERENCE) == digest(GOOD)
    assert loaded(folder, {REFERENCE: digest(GOOD)}) is found


def test_a_file_that_was_changed_after_its_approval_does_not_run(folder: Path) -> None:
    approved = {REFERENCE: digest(GOOD)}
    loaded(folder, approved)
    (folder / f"{NAME}.py").write_text(BAD)
    with pytest.raises(Refused, match="is approved, and in"):
        loaded(folder, approved)
    assert "PLUGIN_RAN" not in os.environ
    assert loaded(folder, {REFERENCE: digest(BAD)}).word == "bad"


def test_a_compiled_file_beside_the_approved_one_does_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    path = folder / f"{NAME}.py"
    path.write_text(BAD)
    cached = folder / "__pycache__" / f"{NAME}.{sys.implementation.cache_tag}.pyc"
    py_compile.compile(
        str(path), cfile=str(cached), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH, doraise=True
    )
    path.write_text(GOOD)
    assert loaded(folder, {REFERENCE: digest(GOOD)}).word == "good"
    assert "PLUGIN_RAN" not in os.environ


@pytest.mark.parametrize(
    "reference", ["os:system", "subprocess:run", "wardround.store.atomic:remove_tree", "deploy.parties:enrolled", "x:Y"]
)
def test_nothing_that_is_not_approved_is_imported(folder: Path, reference: str) -> None:
    with pytest.raises((Refused, ConfigError)):
        loaded(folder, {REFERENCE: digest(GOOD)}, reference)


def test_a_built_in_name_is_found_as_ever(folder: Path) -> None:
    with approved_plugins(folder, dict):
        assert resolve("dict", {"dict": "collections:OrderedDict"}, "x").__name__ == "OrderedDict"


def test_the_name_of_a_module_that_is_in_use_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, NAME, type(sys)(NAME))
    with pytest.raises(ConfigError, match="another module of that name"):
        loaded(folder, {REFERENCE: digest(GOOD)})


def test_a_link_that_takes_the_files_place_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / f"{NAME}.py"
    path.rename(folder / "real.py")
    path.symlink_to(folder / "real.py")
    # as if it were put there after it was looked at
    monkeypatch.setattr("wardround.deploy.jobs.plugin_file", lambda folder, reference: path)
    with pytest.raises(Exception, match="cannot be read"):
        plugin_source(folder, REFERENCE, {REFERENCE: digest(GOOD)})


# ------------------------------------------------------------------------------------------------ the coordinator's own list


def test_a_coordinator_takes_no_job_with_code_that_it_has_not_approved(tmp_path: Path) -> None:
    parties = enrolled(tmp_path)
    own, submitter = parties.coordinator, parties.submitter
    at_submitter = submitter.path / "plugins"
    at_submitter.mkdir(exist_ok=True)
    (at_submitter / f"{NAME}.py").write_text(GOOD)
    job = tmp_path / "job.yaml"
    job.write_text(
        f"name: heart\ndata: {{dataset: heart}}\nmodel: {{name: '{REFERENCE}'}}\nevaluation: {{baselines: []}}\n"
    )
    signed, path = operate.submit(job, submitter.path)

    def take() -> Any:
        return operate.submit(path, own.path)

    refused(take, "not approved here")
    assert not list((own.path / "inbox").glob("*")) if (own.path / "inbox").exists() else True
    listed = own.path / "plugins.yaml"
    listed.write_text(f"'{REFERENCE}': {digest(BAD)}\n")
    refused(take, "and the job means")
    listed.write_text(f"'{REFERENCE}': {digest(GOOD)}\n")
    with pytest.raises(ConfigError, match="there is no file"):
        take()
    (own.path / "plugins").mkdir()
    (own.path / "plugins" / f"{NAME}.py").write_text(BAD)
    refused(take, "is approved, and in")
    (own.path / "plugins" / f"{NAME}.py").write_text(GOOD)
    assert take()[0].id == signed.id
    assert "PLUGIN_RAN" not in os.environ


def refused(act: Callable[[], Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        act()


def test_options_count_as_code_too(tmp_path: Path) -> None:
    parties = enrolled(tmp_path)
    job = from_mapping({"data": {"dataset": "heart", "options": {"reader": REFERENCE}}})
    plugin_folder = tmp_path / "own"
    plugin_folder.mkdir()
    (plugin_folder / f"{NAME}.py").write_text(GOOD)
    signed = sign_job(parties.submitter.identity(), job, parties.fingerprints(), plugins=plugin_folder)
    with pytest.raises(Refused, match=r"data.options.reader = .* code that is not approved here"):
        check_plugins(signed, plugin_folder, {})
    check_plugins(signed, plugin_folder, {REFERENCE: digest(GOOD)})
    assert open_folder(parties.submitter.path).name == SUBMITTER


@pytest.mark.parametrize(
    "text", ["[]", "nets:Net: 3", "nets: " + "0" * 64, "'nets:Net': " + "0" * 63, "a: [", "'../x:Y': " + "0" * 64]
)
def test_a_list_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plugins.yaml"
    assert read_approved(path) == {}
    path.write_text(text)
    if text == "[]":  # nothing is approved
        assert read_approved(path) == {}
        return
    with pytest.raises(ConfigError):
        read_approved(path)
