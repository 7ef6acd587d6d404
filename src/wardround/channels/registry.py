"""The table of channels."""

from __future__ import annotations

from typing import cast

from wardround.config.job import ChannelSpec
from wardround.config.plugins import construct, resolve
from wardround.types import Channel

CHANNELS = {"plain": "wardround.channels.plain:Plain"}


def build(spec: ChannelSpec) -> Channel:
    """The channel that `privacy.channel.kind` chooses."""
    factory = resolve(spec.kind, CHANNELS, "privacy.channel.kind")
    return cast(Channel, construct(factory, spec.options, f"privacy.channel.options of {spec.kind}"))
