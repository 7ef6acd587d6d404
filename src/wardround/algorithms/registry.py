"""The tables of rules, and how a job's names become a pair of them."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from wardround.config.job import AlgorithmSpec
from wardround.config.patterns import matching
from wardround.config.plugins import construct, resolve
from wardround.errors import ConfigError
from wardround.types import LocalRule, ServerRule

LOCAL_RULES = {
    "fedavg": "wardround.algorithms.fedavg:FedAvg",
    "fedprox": "wardround.algorithms.fedprox:FedProx",
    "fednova": "wardround.algorithms.fednova:FedNova",
    "scaffold": "wardround.algorithms.scaffold:Scaffold",
    "fedbn": "wardround.algorithms.fedbn:FedBN",
    "qfedavg": "wardround.algorithms.qfedavg:QFedAvg",
}

SERVER_RULES = {
    "average": "wardround.algorithms.server_average:Average",
    "momentum": "wardround.algorithms.server_momentum:Momentum",
    "adam": "wardround.algorithms.server_adam:Adam",
    "yogi": "wardround.algorithms.server_yogi:Yogi",
    "adagrad": "wardround.algorithms.server_adagrad:Adagrad",
}

_SERVER_OPTIONS = {
    "average": (),
    "momentum": ("beta1",),
    "adam": ("beta1", "beta2", "epsilon"),
    "yogi": ("beta1", "beta2", "epsilon"),
    "adagrad": ("beta1", "epsilon"),
}
"""Which keys of `algorithm.server`, beside the learning rate, a built-in rule takes."""


def local_rule(spec: AlgorithmSpec) -> LocalRule:
    """The client half that `algorithm.name` chooses."""
    own = {"mu": spec.mu, "q": spec.q}
    options: dict[str, Any] = {**spec.options, **{key: value for key, value in own.items() if value is not None}}
    rule = construct(resolve(spec.name, LOCAL_RULES, "algorithm.name"), options, f"algorithm.options of {spec.name}")
    return cast(LocalRule, _complete(rule, LocalRule, "algorithm.name", spec.name))


def server_rule(spec: AlgorithmSpec) -> ServerRule:
    """The server half that `algorithm.server.name` chooses."""
    server = spec.server
    own = {key: getattr(server, key) for key in ("learning_rate", *_SERVER_OPTIONS.get(server.name, ()))}
    options: dict[str, Any] = {**{key: value for key, value in own.items() if value is not None}, **server.options}
    factory = resolve(server.name, SERVER_RULES, "algorithm.server.name")
    rule = construct(factory, options, f"algorithm.server.options of {server.name}")
    return cast(ServerRule, _complete(rule, ServerRule, "algorithm.server.name", server.name))


def _complete(rule: Any, protocol: type, where: str, name: str) -> Any:
    """The rule, once it has every member of its protocol."""
    members = [m for m in (*vars(protocol), *protocol.__annotations__) if not m.startswith("_")]
    absent = sorted({m for m in members if not hasattr(rule, m)})
    if absent:
        raise ConfigError(
            f"{where} = {name!r}: it has no {', '.join(absent)}: see {protocol.__name__} in wardround.types"
        )
    return rule


def local_names(
    patterns: tuple[str, ...],
    rule: LocalRule,
    owners: dict[str, nn.Module],
    names: list[str],
    *,
    where: str = "model.local",
) -> frozenset[str]:
    """Which parameters and buffers stay at a site: what the rule keeps, and what `model.local` names.

    Args:
        patterns: shell patterns of full names (`head.*`, `*`), prefixes of modules (`head`), or module types.
        rule: its `local` is asked for every name.
        owners: the submodule that owns each name.
        names: parameters and floating-point buffers that could be shared.
        where: the job's key of the patterns.

    Raises:
        ConfigError: a pattern that matches nothing, or FedBN on a model without BatchNorm.
    """
    kept = {name for name in names if rule.local(name, owners[name])}
    if rule.name == "fedbn" and not kept:
        raise ConfigError(
            "algorithm fedbn keeps BatchNorm layers at the site, and this model has none, so it would be fedavg: "
            "choose a model with BatchNorm (mlp with options {norm: batch}, cnn), or fedavg with model.local"
        )
    for pattern in patterns:
        matched = matching(pattern, owners, names)
        if not matched:
            raise ConfigError(f"{where}: {pattern!r} matches nothing; the model's names are {', '.join(names)}")
        kept |= matched
    return frozenset(kept)
