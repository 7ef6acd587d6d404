"""Maps of validation images from a job to the run folder, by either method."""

from __future__ import annotations

from pathlib import Path

import torch

from wardround import Job, run, wire
from wardround.types import Arrays, Json

JOB = {
    "data": {"dataset": "labelled_plugins:Xrays", "options": {"rows": 160}},
    "partition": {"kind": "dirichlet", "alpha": 1.0, "sites": 3},
    "model": {"name": "labelled_plugins:Spots"},
    "training": {"rounds": 1, "batch_size": 16, "optimizer": {"learning_rate": 0.2}},
}


def maps_of(folder: Path, **evaluation: object) -> tuple[Arrays, list[dict[str, Json]]]:
    asked = {"baselines": [], "bootstrap": 0, "maps": 2, **evaluation}
    result = run(Job.model_validate({**JOB, "evaluation": asked}), folder)
    return wire.unpack((folder / "maps.safetensors").read_bytes())[0], result["maps"]


def test_each_method_looks_at_the_same_images_in_its_own_way(tmp_path: Path) -> None:
    usual, facts = maps_of(tmp_path / "usual")
    covered, others = maps_of(tmp_path / "covered", maps_by="occlusion")
    assert {fact["by"] for fact in facts} == {"grad_cam"}
    assert [{**fact, "by": "occlusion"} for fact in facts] == others
    assert torch.equal(usual["pictures"], covered["pictures"])
    assert covered["maps"].shape == usual["maps"].shape
    assert covered["maps"].amax((1, 2)).tolist() == [255, 255]
    assert not torch.equal(covered["maps"], usual["maps"])
