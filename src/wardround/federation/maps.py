"""A few validation images of the sites with the evidence that the kept model finds in them.

These are pictures of patients: they are made only where a job asks for them (`evaluation.maps`), in the process that holds
the records.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.data.strata import strata
from wardround.federation.rounds import Outcome
from wardround.federation.site import Host
from wardround.streams import generator
from wardround.training.evaluate import flat
from wardround.training.gradcam import grad_cam
from wardround.training.loss import multilabel, scores
from wardround.training.occlusion import occlusion
from wardround.types import LOCAL, Arrays

METHODS = {"grad_cam": grad_cam, "occlusion": occlusion}


def maps(host: Host, outcome: Outcome, count: int) -> tuple[Arrays, list[dict[str, Any]]]:
    """Maps of validation rows (`evaluation.maps_by`), drawn from the job's seed so that classes take turns.

    Of a volume the plane is kept in which the map is strongest. Each row is scored with its own site's model.

    Args:
        host: the sites, prepared, with the states of the kept round.
        outcome: the kept model.
        count: most rows.

    Returns:
        `pictures` uint8 [n, C, H, W], each stretched to its own range, and `maps` uint8 [n, H, W]; and a row's facts: `site`,
        `by` (the method), `true` and `shown` (class names), `probability` of what is shown, `plane` of a volume.
    """
    records, sites = host.records, host.records.sites
    data = records.rows(sites, "validation")
    index, owner = flat(data)
    labels = data.labels[index].cpu()
    pictures, evidence, facts = [], [], []
    model, names = outcome.server.model, records.description.classes
    by = host.job.evaluation.maps_by
    for row in _chosen(strata(labels.numpy()), count, host.job.seed):
        site = sites[int(owner[row])]
        states = host.states.read((site,), host.network.initial_state)
        own = {n.removeprefix(LOCAL): v[0] for n, v in states.items() if n.startswith(LOCAL)}
        x = data.features[index[row : row + 1]]
        arrays = {n: v.to(x.device) for n, v in {**model.params, **model.buffers, **own}.items()}
        found, decision = METHODS[by](host.network.module, arrays, x, labelled=labels.dim() == 2)
        with torch.no_grad():
            logits = torch.func.functional_call(host.network.module, arrays, (x,))
        likely = scores(logits, labelled=multilabel(logits, labels))[0]
        shown = int(decision[0])
        true = (
            [names[c] for c in np.flatnonzero(labels[row].numpy())] if labels.dim() == 2 else [names[int(labels[row])]]
        )
        seen = data.features.index_select(0, index[row : row + 1])  # before it was standardised
        picture, heat, plane = _plane(seen[0].cpu(), found[0])
        pictures.append(_bytes(picture))
        evidence.append((heat * 255).round().to(torch.uint8))
        facts.append(
            {
                "site": site,
                "by": by,
                "true": true,
                "shown": names[shown],
                "probability": float(likely[shown] if likely.dim() else likely if shown else 1.0 - likely),
                **({} if plane is None else {"plane": plane}),
            }
        )
    if not facts:
        return {}, []
    return {"pictures": torch.stack(pictures), "maps": torch.stack(evidence)}, facts


def _chosen(classes: NDArray[np.int64], count: int, seed: int) -> list[int]:
    """Rows in turn from the classes, the last class first: of two, a positive row leads."""
    order = generator("maps", seed).permutation(len(classes))
    queues = [order[classes[order] == c] for c in np.unique(classes)[::-1]]
    longest = max(map(len, queues), default=0)
    turns = (int(queue[turn]) for turn in range(longest) for queue in queues if turn < len(queue))
    return [row for row, _ in zip(turns, range(count), strict=False)]


def _plane(picture: Tensor, heat: Tensor) -> tuple[Tensor, Tensor, int | None]:
    if heat.dim() == 2:
        return picture, heat, None
    plane = int(heat.sum(dim=(1, 2)).argmax())
    return picture[:, plane], heat[plane], plane


def _bytes(picture: Tensor) -> Tensor:
    low, high = picture.min(), picture.max()
    return ((picture - low) / (high - low).clamp_min(1e-12) * 255).round().to(torch.uint8)
