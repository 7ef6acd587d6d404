"""The job: every field described, every example loads, and a job survives its own YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from wardround.config import Job, difference, dump, from_mapping, load
from wardround.config.load import parse_yaml

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def nodes(model: type[BaseModel]) -> list[type[BaseModel]]:
    found = [model]
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += nodes(field.annotation)
    return found


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_loads(example: Path) -> None:
    job = load(example)
    assert job.name == example.stem
    assert from_mapping(parse_yaml(dump(job), "dump")) == job


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES} >= {"wdbc", "heart"}


@pytest.mark.parametrize("node", nodes(Job), ids=lambda node: node.__name__)
def test_every_node_and_field_says_what_it_is(node: type[BaseModel]) -> None:
    assert node.__doc__
    for name, field in node.model_fields.items():
        described = field.description
        if not described and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            described = field.annotation.__doc__
        assert described, f"{node.__name__}.{name} has no description"


def test_the_default_job_can_be_written_and_read() -> None:
    job = Job()
    assert from_mapping(parse_yaml(dump(job), "dump")) == job
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_a_job_with_everything_survives_its_yaml() -> None:
    job = from_mapping(
        {
            "name": "all of it + 1.0",
            "seed": 2**63 - 1,
            "data": {
                "dataset": "m:C",
                "options": {"a": [1, {"b": None}], "c": "1e-3"},
                "preprocessing": {"drop": ["x"]},
            },
            "model": {"name": "mlp", "options": {"hidden": [3, 4]}, "local": ["head.*", "BatchNorm1d"]},
            "training": {"optimizer": {"learning_rate": 1e-7}, "local_steps": 3},
            "participation": {"count": 3},
            "evaluation": {"baselines": [], "threshold": "balanced"},
            "engine": {"chunk": 4, "threads": 2},
        }
    )
    assert load_text(dump(job)) == job


def load_text(text: str) -> Job:
    return from_mapping(parse_yaml(text, "text"))


def test_a_job_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Job().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_is_the_default_job(text: str) -> None:
    assert load_text(text) == Job()


def test_anchors_and_merges_of_yaml_are_understood() -> None:
    text = "training: {optimizer: &o {learning_rate: 0.5}}\nevaluation: {bootstrap: 3}\n"
    assert load_text(text).training.optimizer.learning_rate == 0.5
    merged = "data: {options: {a: &a {x: 1, y: 2}, b: {<<: *a, y: 3}}}"
    assert load_text(merged).data.options == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}


def test_a_number_without_a_point_is_still_a_number() -> None:
    """YAML 1.1 reads 1e-3 as text, and people write it."""
    assert yaml.safe_load("1e-3") == "1e-3"
    assert load_text("training: {optimizer: {learning_rate: 1e-3}}").training.optimizer.learning_rate == 1e-3


# ------------------------------------------------------------------------------------------------------- differences


def test_equal_jobs_do_not_differ() -> None:
    assert difference(Job(), Job()) == []


def test_a_difference_names_the_key_and_both_values() -> None:
    old = from_mapping({"model": {"options": {"hidden": [3]}}})
    new = from_mapping({"seed": 1, "model": {"options": {"norm": "batch"}}, "training": {"rounds": 3}})
    assert difference(old, new) == [
        "model.options.hidden: [3] -> (absent)",
        "model.options.norm: (absent) -> 'batch'",
        "seed: 0 -> 1",
        "training.rounds: 20 -> 3",
    ]


def test_empty_options_differ_from_some() -> None:
    some = from_mapping({"model": {"options": {"hidden": [3]}}})
    assert difference(Job(), some) == ["model.options: {} -> (absent)", "model.options.hidden: (absent) -> [3]"]


# ------------------------------------------------------------------------------------------------------- overrides


def job_with(*overrides: str, **tree: Any) -> Job:
    return from_mapping(tree, overrides)


def test_an_override_reads_yaml() -> None:
    job = job_with("seed=7", "model.local=[a, b]", "data.options={x: [1, 2]}", "participation.count=null", "name=a b")
    assert (job.seed, job.model.local, job.data.options) == (7, ("a", "b"), {"x": [1, 2]})
    assert (job.participation.count, job.name) == (None, "a b")


def test_an_override_wins_over_the_file_and_the_last_over_the_first() -> None:
    assert job_with("training.rounds=5", training={"rounds": 3, "batch_size": 4}).training.rounds == 5
    assert job_with("training.rounds=5", training={"rounds": 3, "batch_size": 4}).training.batch_size == 4
    assert job_with("seed=1", "seed=2").seed == 2


def test_an_override_reaches_into_options() -> None:
    job = job_with("model.options.norm=batch", model={"name": "mlp", "options": {"hidden": [3]}})
    assert job.model.options == {"hidden": [3], "norm": "batch"}


def test_an_override_may_hold_equals_signs() -> None:
    assert job_with("data.options.query=a=b").data.options == {"query": "a=b"}


def test_an_override_leaves_the_given_tree_alone() -> None:
    tree = {"training": {"rounds": 3}}
    from_mapping(tree, ["training.rounds=5"])
    assert tree == {"training": {"rounds": 3}}


def test_an_override_replaces_its_twin() -> None:
    epochs = job_with("training.local_epochs=2", training={"local_steps": 5}).training
    assert (epochs.local_steps, epochs.local_epochs) == (None, 2)
    steps = job_with("training.local_steps=2", training={"local_epochs": 5}).training
    assert (steps.local_steps, steps.local_epochs) == (2, None)
    asked = job_with("participation.fraction=0.5", participation={"count": 3}).participation
    assert (asked.fraction, asked.count) == (0.5, None)
