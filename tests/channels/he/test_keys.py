import base64
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.channels.he.group import Group, elements, names, plain_sum
from wardround.channels.he.bfv import Cipher
from wardround.channels.he.keys import file_name
from wardround.channels.home import Home
from wardround.errors import IdentityError, MessageError, Refused

WHOLE = ("he-keys", "he-make", "he-take")


def stages(group):
    asked, group.post.asked = group.post.asked, []
    return [stage for stage, _ in asked]


def works(group, members=None, index=0):
    """One exchange from setup to the opened sum."""
    members = members or group.names
    talk = group.talk(index)
    group.carrier.setup(talk, members)
    uploads = elements(group.carrier.modulus, len(members), 10, seed=index)
    total = group.summed(talk, dict(zip(members, uploads, strict=True)))
    assert np.array_equal(group.opened(talk, total, members), plain_sum(uploads, group.carrier.modulus))


def held(group, site, run="run-1"):
    return group.post.halves[site]._keys.of(site, run)


@pytest.fixture
def disk(tmp_path):
    return Group(4, home=replace(Home.simulated(names(4)), folder=tmp_path))


def test_the_key_is_distributed_once_a_run():
    group = Group(4)
    works(group, index=0)
    assert stages(group) == ["he-keys"] * 4 + ["he-make"] + ["he-take"] * 3 + ["reveal"]
    works(group, index=1)
    assert stages(group) == ["reveal"]
    assert len({held(group, site).secret for site in group.names}) == 1


def test_nothing_that_crosses_the_server_holds_the_key():
    group = Group(4)
    works(group)
    secret = held(group, group.names[0]).secret
    cipher_key = held(group, group.names[0])
    crossing = b"".join(group.post.up + group.post.down)
    for hidden in (secret, cipher_key.tags):
        assert all(form not in crossing for form in (hidden, base64.b64encode(hidden), hidden.hex().encode()))
    assert held(group, group.names[0]).id.encode() in crossing  # the search finds what is there


def test_another_run_has_another_key_and_a_key_is_of_one_run():
    one, other = Group(3), Group(3)
    one.ready(one.talk())
    other.run = "run-2"
    other.ready(other.talk())
    assert held(one, one.names[0]).secret != held(other, other.names[0], "run-2").secret
    one.run = "run-2"
    with pytest.raises(MessageError, match="no key of run 'run-2'"):
        one.sealed(one.talk(), one.names[0], np.zeros(1, dtype=np.uint64))


def test_another_set_of_sites_is_another_key():
    group = Group(5, most=5)
    fifth = group.names[4]
    late = group.post.halves.pop(fifth)
    works(group, group.names[:4])
    before = held(group, group.names[0])
    group.post.halves[fifth] = late
    works(group, index=1)
    joined = held(group, group.names[0])
    assert joined.secret != before.secret
    assert joined.group.sites == group.names
    del group.post.halves[group.names[1]]
    works(group, tuple(group.post.halves), index=2)
    assert held(group, fifth).secret != joined.secret
    assert late._keys.of(fifth, "run-1").secret == held(group, group.names[0]).secret


def test_a_site_that_missed_the_new_key_does_not_seal_with_the_old_one():
    group = Group(5)
    works(group)
    del group.post.halves[group.names[4]]
    late = group.names[3]
    group.post.silent = {("he-take", late)}
    talk = group.talk(1)
    group.carrier.setup(talk, group.names[:4])
    with pytest.raises(MessageError, match=f"site '{late}' holds no key"):
        group.sealed(talk, late, np.zeros(1, dtype=np.uint64))
    group.post.silent = set()
    works(group, group.names[:4], index=2)


def test_a_site_that_was_away_is_given_the_same_key_later():
    group = Group(4)
    away = group.names[2]
    group.post.away = {away}
    talk = group.talk()
    group.ready(talk)
    secret = held(group, group.names[0]).secret
    group.post.away = set()
    with pytest.raises(MessageError, match=f"site '{away}' holds no key"):
        group.sealed(talk, away, np.zeros(1, dtype=np.uint64))
    stages(group)
    works(group, index=1)
    assert held(group, away).secret == secret
    assert "he-make" in stages(group)


def test_the_first_site_may_be_away_when_the_key_is_made():
    group = Group(4)
    group.post.away = {group.names[0]}
    group.ready(group.talk())
    group.post.away = set()
    works(group, index=1)
    assert len({held(group, site).secret for site in group.names}) == 1


def test_a_maker_that_says_nothing_is_passed_over():
    group = Group(4)
    group.post.silent = {("he-make", group.names[0])}
    works(group, group.names[1:])
    group.post.silent = set()
    works(group, index=1)
    assert len({held(group, site).secret for site in group.names}) == 1


def test_a_site_that_restarted_without_its_key_is_given_it_again():
    group = Group(4)
    works(group)
    secret = held(group, group.names[1]).secret
    group.restart(group.names[1])
    talk = group.talk(1)
    group.ready(talk)
    with pytest.raises(MessageError, match="holds no key"):  # the server learns of it by the message that never came
        group.sealed(talk, group.names[1], np.zeros(1, dtype=np.uint64))
    works(group, index=2)
    assert held(group, group.names[1]).secret == secret


def test_where_all_restarted_without_a_key_another_is_made():
    group = Group(4)
    works(group)
    secret = held(group, group.names[0]).secret
    for site in group.names:
        group.restart(site)
    group.ready(group.talk(1))  # the exchange is lost: nobody can seal
    works(group, index=2)
    assert held(group, group.names[0]).secret != secret


def test_sites_that_hold_different_keys_come_together_again():
    """The first three hold one key; they are away, and the others make another; then all are back."""
    group = Group(6)
    old, new = set(group.names[:3]), set(group.names[3:])
    group.post.away = new
    works(group, group.names[:3])
    group.post.away = old
    works(group, group.names[3:], index=1)
    assert held(group, "site-000").secret != held(group, "site-005").secret
    group.post.away = set()
    group.carrier = Group(6).carrier  # and the server has forgotten which it was
    works(group, index=2)
    assert len({held(group, site).secret for site in group.names}) == 1


def test_the_key_in_use_wins_over_one_that_comes_back():
    group = Group(6)
    group.post.away = set(group.names[3:])
    works(group, group.names[:3])
    group.post.away = set(group.names[:3])
    works(group, group.names[3:], index=1)
    in_use = held(group, "site-005").secret
    group.post.away = set()
    works(group, index=2)
    assert {held(group, site).secret for site in group.names} == {in_use}


def test_a_site_that_restarts_between_two_stages_is_given_the_key_the_next_time():
    group = Group(4)

    def restart(request, site):
        if request.message.stage == "he-take" and site == "site-002":
            group.restart(site)
        return request

    group.post.before = restart
    with pytest.raises(MessageError, match="site 'site-002' has advertised no key"):
        group.ready(group.talk())
    group.post.before = lambda request, site: request
    works(group, index=1)


def test_a_server_that_restarted_finds_the_key_where_it_is():
    group = Group(4)
    works(group)
    secret = held(group, group.names[0]).secret
    group.carrier = Group(4).carrier
    stages(group)
    works(group, index=1)
    assert stages(group) == ["he-keys"] * 4 + ["reveal"]
    assert held(group, group.names[0]).secret == secret


def test_a_key_outlives_a_restart_in_a_file_that_only_its_owner_reads(disk, tmp_path):
    works(disk)
    secret = held(disk, disk.names[1]).secret
    path = tmp_path / disk.names[1] / f"he-key-{file_name(disk.names[1])}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    for site in disk.names:
        disk.restart(site)
    stages(disk)
    works(disk, index=1)
    assert stages(disk) == ["reveal"]
    assert held(disk, disk.names[1]).secret == secret
    left = [one.name for one in tmp_path.rglob("*") if one.is_file()]
    assert sorted({name.split("-")[1] for name in left}) == ["key", "opened"]


def test_a_damaged_key_file_is_named(disk, tmp_path):
    works(disk)
    site = disk.names[1]
    path = tmp_path / site / f"he-key-{file_name(site)}.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(IdentityError, match=f"{path.name}, the key of site '{site}', is damaged"):
        disk.restart(site)
    path.unlink()
    disk.restart(site)
    disk.ready(disk.talk(1))
    works(disk, index=2)


def test_a_stored_key_of_another_parameter_set_is_forgotten(disk):
    works(disk)
    disk.most = 100
    site = disk.names[0]
    disk.restart(site)
    with pytest.raises(MessageError, match="holds no key"):
        held(disk, site)


def _replace(group, stage, change):
    """Let the server alter what it passes on to a stage."""

    def before(request, site):
        if request.message.stage != stage:
            return request
        meta = json.loads(json.dumps(dict(request.message.meta)))
        facts = json.loads(json.dumps({name: dict(values) for name, values in request.facts.items()}))
        change(meta, facts)
        return replace(request, message=replace(request.message, meta=meta), facts=facts)

    group.post.before = before


def test_a_key_that_the_server_put_in_a_sites_place_is_found():
    group = Group(4)
    mallory = Group(4).post.halves["site-002"]._keys  # an identity of the same name that nobody pinned
    victim = group.names[2]

    def swap(meta, facts):
        from wardround.channels.exchange import Exchange
        from wardround.channels.he.keys import Group as KeyGroup

        exchange = Exchange(**meta["exchange"])
        own = KeyGroup(run=exchange.run, sites=group.names, parameters=group.carrier.parameters)
        meta["adverts"][victim] = mallory.advertise(victim, own, exchange)

    _replace(group, "he-make", swap)
    with pytest.raises(
        IdentityError, match=f"the key advertised by '{victim}' is not signed by the identity that is pinned"
    ):
        group.ready(group.talk())
    with pytest.raises(MessageError, match="holds no key"):
        held(group, group.names[0])  # nothing was made


def test_a_site_that_is_not_of_the_group_gets_no_box():
    group = Group(4)
    _replace(group, "he-make", lambda meta, facts: meta["adverts"].update({"sybil": meta["adverts"][group.names[1]]}))
    with pytest.raises(IdentityError, match="'sybil' is not a site that is known here"):
        group.ready(group.talk())


def test_a_group_with_a_name_that_is_not_pinned_is_refused():
    group = Group(4)
    _replace(group, "he-keys", lambda meta, facts: meta["he_group"]["sites"].append("sybil"))
    with pytest.raises(IdentityError, match="the group names sybil, whose public key is not pinned at 'site-000'"):
        group.ready(group.talk())


def _group(meta, **changes):
    meta["he_group"].update(changes)


@pytest.mark.parametrize(
    ("change", "error", "why"),
    [
        (lambda meta: meta.pop("he_group"), MessageError, "names no group"),
        (lambda meta: _group(meta, sites=["site-000", "site-001"]), Refused, "a group of 2 sites"),
        (lambda meta: _group(meta, sites=["site-001", "site-002", "site-003"]), MessageError, "'site-000' among them"),
        (lambda meta: _group(meta, sites=["site-000"] * 3), MessageError, "no list of different names"),
        (lambda meta: _group(meta, sites=[1, 2, 3]), MessageError, "no list of different names"),
        (lambda meta: _group(meta, parameters={}), MessageError, "announces BFV parameters"),
        (lambda meta: meta.pop("exchange"), MessageError, "names the exchange"),
    ],
)
def test_a_malformed_group_is_refused(change, error, why):
    group = Group(4)
    _replace(group, "he-keys", lambda meta, facts: change(meta))
    with pytest.raises(error, match=why):
        group.ready(group.talk())


@pytest.mark.parametrize("adverts", [None, [], {"site-001": None}, {"site-001": {"public": "?", "signature": ""}}])
def test_malformed_advertisements_are_refused(adverts):
    group = Group(4)
    _replace(group, "he-make", lambda meta, facts: meta.update(adverts=adverts))
    with pytest.raises(MessageError):
        group.ready(group.talk())


def _altered(text):
    data = bytearray(base64.b64decode(text))
    data[40] ^= 1
    return base64.b64encode(bytes(data)).decode()


@pytest.mark.parametrize(
    ("change", "error", "why"),
    [
        (lambda meta, box: box.update(box=_altered(box["box"])), IdentityError, "is not signed"),
        (lambda meta, box: box.update(signature=_altered(box["signature"])), IdentityError, "is not signed"),
        (lambda meta, box: box.clear(), MessageError, "holds no box"),
        (lambda meta, box: meta.update(maker="site-003"), IdentityError, "from 'site-003' is not signed"),
        (lambda meta, box: meta.update(maker="nobody"), IdentityError, "'nobody' is not a site"),
        (lambda meta, box: meta.update(maker=None), MessageError, "the maker of a key is None"),
    ],
)
def test_a_box_that_was_altered_or_is_not_the_makers_is_refused(change, error, why):
    group = Group(4)
    _replace(group, "he-take", lambda meta, facts: change(meta, facts["he_box"]["site-001"]))
    with pytest.raises(error, match=why):
        group.ready(group.talk())


def test_a_box_for_another_site_or_exchange_is_refused():
    group = Group(4)
    seen = {}

    def swap(meta, facts):
        seen.update(facts["he_box"])
        facts["he_box"]["site-001"] = facts["he_box"]["site-002"]

    _replace(group, "he-take", swap)
    with pytest.raises(IdentityError, match="the box for 'site-001' from 'site-000' is not signed"):
        group.ready(group.talk())
    old = seen["site-001"]
    _replace(group, "he-take", lambda meta, facts: facts["he_box"].update({"site-001": old}))
    with pytest.raises(IdentityError, match="is not signed"):
        group.ready(group.talk(1))


def test_a_box_sealed_by_a_false_maker_is_refused_even_under_the_right_name():
    group = Group(3)
    home = group.home_of("site-000")
    false = Home(
        identities={"site-000": (key := Ed25519PrivateKey.generate())},
        pins={**home.pins, "site-000": key.public_key().public_bytes_raw()},
    )
    from wardround.channels.he.site import SiteBfv

    group.post.halves["site-000"] = SiteBfv(false, bits=group.bits, sites=group.most)
    with pytest.raises(IdentityError, match="'site-000' is not signed by the identity that is pinned"):
        group.ready(group.talk())


def test_a_box_is_taken_once():
    group = Group(3)
    group.ready(group.talk())
    box = {"box": base64.b64encode(bytes(100)).decode(), "signature": base64.b64encode(bytes(64)).decode()}
    keys, key = group.post.halves["site-001"]._keys, held(group, "site-001")
    with pytest.raises(MessageError, match="advertised no key"):
        keys.take("site-001", key.group, group.talk().exchange, "site-000", box)


def test_the_secret_key_is_the_same_wherever_it_is_derived():
    group = Group(3)
    group.ready(group.talk())
    assert len({held(group, site).cipher.fingerprint for site in group.names}) == 1
    assert held(group, "site-000").cipher is not held(group, "site-001").cipher
    assert "secret" not in repr(held(group, "site-000"))


def test_every_part_of_the_seed_makes_another_secret_key():
    ring = Group(3).carrier.ring
    seeds = [bytes(64), *(bytes(at) + b"1" + bytes(63 - at) for at in range(0, 64, 8))]
    assert len({Cipher(ring, seed).fingerprint for seed in seeds}) == 9


def test_a_release_that_derives_another_secret_key_is_found(monkeypatch):
    group = Group(3)
    seen = []
    monkeypatch.setattr(
        "wardround.channels.he.bfv._fingerprint", lambda secret: bytes([len(seen)] * (seen.append(0) or 32))
    )
    with pytest.raises(MessageError, match="the key from 'site-000' makes another secret key at 'site-001'"):
        group.ready(group.talk())


def test_elements_are_opened_as_int64_words():
    group = Group(3)
    talk = group.talk()
    group.ready(talk)
    total = group.summed(talk, dict.fromkeys(group.names, np.arange(5, dtype=np.uint64)))
    kinds = []
    group.post.tamper = lambda site, message: kinds.append(message.arrays["elements"].dtype) or message
    assert group.opened(talk, total, group.names).tolist() == [0, 3, 6, 9, 12]
    assert kinds == [torch.int64]
