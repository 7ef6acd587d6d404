"""Error feedback: what rounding and sparsification left out of an update is added to the site's next one.

    corrected_t = update_t + residual_t,    residual_(t+1) = corrected_t - sent_t

(Seide et al., 1-bit stochastic gradient descent, Interspeech 2014; Stich, Cordonnier and Jaggi, Sparsified SGD with memory,
NeurIPS 2018.) A residual is part of the site's state under `feedback/<term>/<name>`: pending until the server says that the
update was counted, so an update that never arrived leaves the old residual in place.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch

from wardround.config.job import PrivacySpec
from wardround.encoding.compress import Compression
from wardround.encoding.parcel import compressible, sent
from wardround.types import Arrays, Contribution, LocalRule, ModelState, Progress, Server

FEEDBACK = "feedback/"
"""Prefix of residuals in a site's state."""


def applies(privacy: PrivacySpec) -> bool:
    """Whether sites keep residuals."""
    return privacy.encoding.feedback and privacy.channel.kind == "plain"


def initial(rule: LocalRule, shared: ModelState, states: Arrays, exact: Collection[str]) -> Arrays:
    """The residuals of a site before its first round: zeros, one for each array of its update that is not exact.

    The rule is asked once what it gives for a site that took no step; only names, shapes and dtypes of the answer count.

    Args:
        rule: the client half of the algorithm.
        shared: the part of the model that the server holds.
        states: what else a site keeps before its first round, without a site axis.
        exact: terms that are never compressed.
    """
    nothing = torch.zeros(1, dtype=torch.float64)
    progress = Progress(
        steps=nothing, effective_steps=nothing, learning_rate=1.0, momentum=0.0, incoming_loss=nothing.clone
    )
    server = Server(model=shared, rule=rule.broadcast(shared))
    one = {name: value.detach().unsqueeze(0).clone() for name, value in states.items()}
    params = {name: value.detach().unsqueeze(0).clone() for name, value in shared.params.items()}
    own, _ = rule.finish(params, server, one, progress)
    terms = {"step": shared.params, "buffers": shared.buffers}
    terms |= {term: {name: value[0] for name, value in arrays.items()} for term, arrays in own.items()}
    return {
        f"{FEEDBACK}{term}/{name}": torch.zeros_like(value, device="cpu").detach()
        for term, arrays in terms.items()
        for name, value in arrays.items()
        if term not in exact and value.is_floating_point()
    }


def split(states: Arrays) -> tuple[Arrays, Arrays]:
    """The states without residuals, and the residuals under their own names."""
    residuals = {name: value for name, value in states.items() if name.startswith(FEEDBACK)}
    return {name: value for name, value in states.items() if name not in residuals}, residuals


def corrected(
    contribution: Contribution, residuals: Arrays, compression: Compression | None, seed: int
) -> tuple[Contribution, Arrays]:
    """The contribution with the residuals [K, ...] added, and the new residuals, under the same names.

    Args:
        contribution: of K sites, finite.
        residuals: the K sites' own; an array without one is left as it is, and so is one without an array.
        compression: how the contribution will be compressed; None leaves nothing out, and both come back as they are.
        seed: of the round.
    """
    if compression is None:
        return contribution, residuals
    terms = {}
    for term, content in contribution.terms.items():
        known = {n: residuals[f"{FEEDBACK}{term}/{n}"] for n in content.arrays if f"{FEEDBACK}{term}/{n}" in residuals}
        arrays = {
            name: value + known[name].to(value) if name in known else value for name, value in content.arrays.items()
        }
        terms[term] = replace(content, arrays=arrays)
    whole = replace(contribution, terms=terms)
    read, arrays = sent(whole, compression, seed), compressible(whole, compression)
    left = {FEEDBACK + name: value - read[name] for name, value in arrays.items() if FEEDBACK + name in residuals}
    return whole, {**residuals, **left}
