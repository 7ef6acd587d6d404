"""The kinds of partition: a plain table. Anything else is a plug-in `module:Class`."""

from __future__ import annotations

from typing import Any, cast

from wardround.config.job import PartitionSpec
from wardround.config.plugins import construct, resolve
from wardround.data.partitions.patients import Dealing
from wardround.data.partitions.quantity import Quantity
from wardround.errors import ConfigError

NATURAL = "natural"

PARTITIONS = {
    "iid": "wardround.data.partitions.iid:IID",
    "dirichlet": "wardround.data.partitions.dirichlet:Dirichlet",
    "pathological": "wardround.data.partitions.pathological:Pathological",
    "quantity": "wardround.data.partitions.quantity:Quantity",
    "combined": "wardround.data.partitions.combined:Combined",
}


def build(spec: PartitionSpec) -> Dealing:
    """The dealing that `partition.kind` chooses, which is not `natural`.

    Raises:
        ConfigError: an unknown kind, a plug-in that cannot be imported, or options that do not fit it.
    """
    if spec.kind not in PARTITIONS and ":" not in spec.kind:
        resolve(spec.kind, {**PARTITIONS, NATURAL: ""}, "partition.kind")
    factory = resolve(spec.kind, PARTITIONS, "partition.kind")
    dealing = construct(factory, _arguments(spec), f"partition.options of {spec.kind}")
    if not callable(getattr(dealing, "deal", None)):
        raise ConfigError(
            f"partition.kind = {spec.kind!r}: it has no method deal: see Dealing in wardround.data.partitions.patients"
        )
    return cast(Dealing, dealing)


def _arguments(spec: PartitionSpec) -> dict[str, Any]:
    quantity = dict(spec.quantity) | {"least": spec.min_rows}
    own: dict[str, dict[str, Any]] = {
        "dirichlet": {"alpha": spec.alpha},
        "pathological": {"classes": spec.classes_per_site or 2, "shards": spec.shards},
        "quantity": quantity,
        "combined": {"quantity": Quantity(**quantity), "alpha": spec.alpha, "classes": spec.classes_per_site},
    }
    return {**own.get(spec.kind, {}), **spec.options}
