"""What carried the sums of a run, in sentences: what each channel hides, from whom, and what it leaves open."""

from __future__ import annotations

from collections.abc import Mapping

from wardround.types import Json

_PLAIN = (
    "The channel is plain: the server sees the update of each site, or the sum of the sites that were trained "
    "together, in the clear. Updates can reveal things about the records behind them (membership inference, "
    "reconstruction from gradients).",
    "The sums and counts that fit the preprocessing reach the server in the clear as well.",
)
_BEYOND = (
    "The channel hides what single sites send. It does not hide the sums themselves, who takes part, each site's number of "
    "training rows, nor the power of two that bounds each array's values, of which the server learns how often it occurred.",
    "A site may still send a false update: nobody can look at it.",
)


def hides(result: Mapping[str, Json]) -> list[str]:
    """What the channel keeps from whom; nothing is said of a plain one or a plug-in."""
    kind, options = _channel(result)
    if kind == "secagg":
        return [
            "Secure aggregation: updates, figures and counts travelled under masks that cancel in the sum, so the server read "
            "sums over three sites or more. That holds while fewer sites than the threshold of the secret shares help the server"
            + (", also against a server that departs from the protocol." if options.get("active") else
               ", and for a server that follows the protocol; option `active` covers one that does not."),
        ]  # fmt: skip
    if kind == "he" and options.get("masks"):
        return [
            "Homomorphic encryption with masks inside: the server added ciphertexts that it cannot open, and what a site opened "
            "was a masked sum. Neither the server with one site's key nor a site alone reads another site's update."
        ]
    if kind == "he":
        return [
            "Homomorphic encryption: the server added ciphertexts that it cannot open, and a site opened the sum. All sites "
            "share one key."
        ]
    return []


def open_ends(result: Mapping[str, Json]) -> list[str]:
    """What the channel leaves open."""
    kind, options = _channel(result)
    if kind == "plain":
        return [*_PLAIN, *_coded(result)]
    if kind == "he" and not options.get("masks"):
        return [
            "The server and any one site together can read every site's update: the channel is for those who trust that they do "
            "not join forces. With masks inside (privacy.channel.options.masks) they could not.",
            *_BEYOND, *_coded(result),
        ]  # fmt: skip
    if kind in ("secagg", "he"):
        return [*_BEYOND, *_coded(result)]
    return [f"The channel is the plug-in '{kind}'; this report makes no statement about what it protects."]


def _channel(result: Mapping[str, Json]) -> tuple[str, Mapping[str, Json]]:
    job = result.get("job") or {}
    spec = (job.get("privacy") or {}).get("channel") or {}
    options = dict(spec.get("options") or {})
    kind = spec.get("kind", "plain")
    if kind == "he" and options.get("masks") is None:
        options["masks"] = (job.get("engine") or {}).get("kind", "local") != "local"
    return kind, options


def _coded(result: Mapping[str, Json]) -> list[str]:
    """How coarse the numbers were that travelled, where they were made coarser."""
    rounds = [entry.get("encoding") for entry in (result.get("history") or {}).get("federated") or []]
    known = [notes for notes in rounds if notes]
    if not known:
        return []
    bits = max(notes.get("bits", 0) for notes in known)
    entries, clipped = (sum(notes.get(name, 0) for notes in known) for name in ("entries", "clipped"))
    share = f"{clipped:,} of {entries:,}" if clipped else f"none of {entries:,}"
    return [
        f"Each value of an update travelled in {bits} bits; over all rounds and sites {share} lay outside the announced range "
        "and were cut off at it."
    ]
