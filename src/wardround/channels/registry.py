"""The table of channels."""

from __future__ import annotations

from typing import cast

from wardround.config.job import PrivacySpec
from wardround.config.plugins import construct, resolve
from wardround.errors import Refused
from wardround.types import Channel

CHANNELS = {
    "plain": "wardround.channels.plain:Plain",
    "secagg": "wardround.channels.secure:masked",
    "he": "wardround.channels.secure:encrypted",
}


def build(privacy: PrivacySpec, *, sites: int | None = None, remote: bool = False) -> Channel:
    """The channel that `privacy.channel.kind` chooses.

    Args:
        privacy: the job's.
        sites: of the federation, where they are known: ciphertexts then get room for so many, and no more.
        remote: whether sites are on other machines: then `he` masks inside the encryption unless it is told otherwise.

    Raises:
        ConfigError: an unknown kind, options that it does not take, or an extra that is not installed.
        Refused: a channel that hides nothing where the job asks for one that hides.
    """
    spec, given = privacy.channel, dict(privacy.channel.options)
    factory = resolve(spec.kind, CHANNELS, "privacy.channel.kind")
    if spec.kind in CHANNELS:
        given["encoding"] = privacy.encoding
    if spec.kind == "he":
        given.setdefault("masks", remote)
        if sites is not None:
            given.setdefault("sites", sites)
    channel = cast(Channel, construct(factory, given, f"privacy.channel.options of {spec.kind}"))
    if privacy.secure and not channel.hides:
        raise Refused(
            f"privacy.secure is true, and on privacy.channel.kind = {spec.kind} the server sees what each site sends: "
            "choose secagg or he"
        )
    return channel
