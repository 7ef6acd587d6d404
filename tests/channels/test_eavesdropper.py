"""What somebody learns who has every byte that the server receives, alone or with one site's key.

The script below is no part of the package's protocol: it reads messages, and with a key it decrypts. It must succeed where the
threat model says that it can (plain; bare encryption with a site's key), or its failures elsewhere would mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from channels.test_secure import channel_of, homes
from federation.adverse import AdverseEngine
from federation.trials import SITES, a_job, adverse_engine, trained
from wardround import wire
from wardround.channels.exchange import asked_of, exchange_of
from wardround.channels.he.site import SiteBfv
from wardround.channels.he.tags import SumOfTags
from wardround.channels.plain import Plain
from wardround.channels.secure import SecureChannel, SecureSite
from wardround.encoding.field import Field
from wardround.encoding.layout import Layout
from wardround.errors import MessageError
from wardround.types import Channel, Message, Reply, Request

STEP = "step/linear.weight"
CLOSE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Overheard:
    """One training round, as the server received it, and what each site really sent."""

    engine: AdverseEngine
    channel: Channel
    contributions: Mapping[str, Message]
    truth: Mapping[str, torch.Tensor]
    asked: Mapping[int, bytes]
    """Serial of an exchange -> what was asked in it, which the server knows, and each site."""


def contributions(engine: AdverseEngine) -> dict[str, Message]:
    found = {}
    for answer in engine.answers:
        message = wire.decode(answer.data)
        measured = "exchange" in message.meta and exchange_of(message).part == "measure"
        if answer.call.stage == "contribute" and answer.call.task == "train" and not measured:
            found[answer.call.site] = message
    return found


@pytest.fixture(scope="module")
def overheard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Overheard:
    folder, job = tmp_path_factory.mktemp("overheard"), a_job(training__rounds=1)
    plain = adverse_engine(folder / "plain-sites", job, Plain())
    trained(folder / "plain", job, plain)
    truth = {site: message.arrays[STEP] for site, message in contributions(plain).items()}
    if request.param == "plain":
        return Overheard(engine=plain, channel=Plain(), contributions=contributions(plain), truth=truth, asked={})
    channel = channel_of(request.param)
    engine = adverse_engine(folder / "sites", job, channel, halves=homes(channel))
    asked, ask = dict[int, bytes](), engine.ask

    def noted(request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        if request.message.stage == "contribute":
            asked[exchange_of(request.message).serial] = asked_of(request.message)
        return ask(request, sites, deadline)

    engine.ask = noted  # type: ignore[method-assign]
    trained(folder / "run", job, engine, channel)
    return Overheard(engine=engine, channel=channel, contributions=contributions(engine), truth=truth, asked=asked)


def read(heard: Overheard, site: str, thief: SiteBfv | None) -> torch.Tensor | None:
    """What the script makes of a site's message; None where it does not even find numbers."""
    message = heard.contributions[site]
    if STEP in message.arrays:
        return message.arrays[STEP]
    assert isinstance(heard.channel, SecureChannel)
    layout = Layout.from_json(message.meta["layout"])
    field = Field(bits=heard.channel.bits, sites=len(SITES))
    per = heard.channel.carrier.per_element(field)
    length = -(-layout.size // per)
    if "words" in message.arrays:
        elements = message.arrays["words"].numpy().view(np.uint64)
    elif thief is None:
        return None
    else:
        exchange = exchange_of(message)
        key = thief._keys.of(next(iter(thief._home.identities)), exchange.run)
        label = exchange.bound(heard.asked[exchange.serial])
        tags = SumOfTags(key.tags, label, (site,), thief._ring.modulus)
        try:
            elements = key.cipher.open(message.arrays, length, tags, 1)
        except MessageError:
            return None
    # by hand, since the package refuses to read what is no sum
    shifts = np.arange(per, dtype=np.uint64) * np.uint64(field.width)
    digits = ((elements[:, None] >> shifts) & np.uint64(2**field.bits - 1)).reshape(-1)
    [entry] = [one for one in layout.entries if one.flat == STEP]
    mine = digits[entry.start : entry.start + entry.digits].astype(np.float64)
    half = 2.0 ** (field.bits - 1)
    values = (mine - half) / (half - 1) * 2.0 ** heard.channel.announced[STEP]
    return torch.from_numpy(values).reshape(entry.shape)


def recovered(heard: Overheard, thief: SiteBfv | None = None) -> list[str]:
    """Sites whose step the script has, but for rounding; those of whom the thief is one do not count."""
    found = []
    for site, truth in heard.truth.items():
        got = read(heard, site, thief)
        if got is not None and float((got - truth).abs().max()) < CLOSE:
            found.append(site)
    return found


def key_of_one_site(heard: Overheard) -> SiteBfv:
    half = heard.engine.hospitals["site-2"].host()._half
    assert isinstance(half, SecureSite)
    assert isinstance(half._carrier, SiteBfv)
    return half._carrier


@pytest.mark.parametrize("overheard", ["plain"], indirect=True)
def test_on_the_plain_channel_the_server_reads_everybody(overheard: Overheard) -> None:
    assert sorted(recovered(overheard)) == list(SITES)


@pytest.mark.parametrize("overheard", ["secagg", "active"], indirect=True)
def test_masked_messages_say_nothing_one_by_one(overheard: Overheard) -> None:
    assert recovered(overheard) == []
    for message in overheard.contributions.values():
        words = message.arrays["words"].numpy().view(np.uint64)
        # uniform words: each of 64 bits is set about half of the time
        share = np.unpackbits(words.view(np.uint8)).mean()
        assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(64 * len(words))


@pytest.mark.parametrize("overheard", ["bare he", "masked he"], indirect=True)
def test_the_server_alone_decrypts_nothing(overheard: Overheard) -> None:
    assert recovered(overheard) == []


@pytest.mark.parametrize("overheard", ["bare he"], indirect=True)
def test_with_one_sites_key_bare_encryption_opens_everybody(overheard: Overheard) -> None:
    assert sorted(recovered(overheard, key_of_one_site(overheard))) == list(SITES)


@pytest.mark.parametrize("overheard", ["masked he"], indirect=True)
def test_with_one_sites_key_a_masked_ciphertext_opens_to_noise(overheard: Overheard) -> None:
    thief = key_of_one_site(overheard)
    assert recovered(overheard, thief) == []
    # it is the masks that hold: the ciphertexts do open
    assert all(read(overheard, site, thief) is not None for site in SITES)
