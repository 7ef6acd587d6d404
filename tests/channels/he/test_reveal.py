from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.channels.he.group import Group, elements, names, plain_sum
from wardround.channels.he.bfv import Cipher
from wardround.channels.he.parameters import choose
from wardround.channels.he.ring import TAGS, seal
from wardround.channels.he.tags import SumOfTags, Tags
from wardround.channels.home import Home
from wardround.encoding.field import Field
from wardround.errors import IdentityError, MessageError, QuorumLost, Refused
from wardround.types import Message, Request

LENGTH = 4100  # two ciphertexts


class Round:
    """One exchange with all uploads at the server."""

    def __init__(self, group, index=0):
        self.group, self.talk = group, group.talk(index)
        group.ready(self.talk)
        self.ring = group.carrier.ring
        self.uploads = dict(zip(group.names, elements(self.ring.modulus, len(group.names), LENGTH, index), strict=True))
        self.sealed = {site: group.sealed(self.talk, site, upload) for site, upload in self.uploads.items()}

    def sum_of(self, *sites):
        total = self.group.carrier.accumulator(LENGTH)
        for site in sites:
            total.add(self.sealed[site])
        return total

    def answer(self, site, arrays, members, length=LENGTH):
        """What `site` answers to a server that claims that `arrays` are the sum of `members`."""
        meta = {"members": list(members), "length": length, "asked": self.talk.asked.hex(), "abstained": []}
        (reply,) = list(self.talk.ask("reveal", [site], meta=meta, arrays=arrays))
        return reply.message.arrays["elements"].numpy().view(np.uint64)

    def plain(self, *sites):
        return plain_sum([self.uploads[site] for site in sites], self.ring.modulus)

    def made(self, ciphertexts):
        return self.ring.write(ciphertexts, len(ciphertexts), fresh=False)


@pytest.fixture(scope="module")
def group():
    return Group(5)


@pytest.fixture
def round(group):
    return Round(group)


ABC = names(5)[:3]


def test_the_sum_of_the_claimed_members_is_opened(round):
    assert np.array_equal(round.answer(ABC[0], round.sum_of(*ABC).message(), ABC), round.plain(*ABC))


def test_a_site_that_is_no_member_opens_as_well(round):
    assert np.array_equal(round.answer("site-004", round.sum_of(*ABC).message(), ABC), round.plain(*ABC))


def test_one_sites_ciphertexts_offered_as_the_sum_are_refused(round):
    for claimed in (ABC, names(5)):
        with pytest.raises(Refused, match=r"not the sum of what its [35] members sent"):
            round.answer(ABC[0], round.sum_of(ABC[1]).message(), claimed)


def test_fewer_than_three_members_are_refused(round):
    with pytest.raises(Refused, match="a sum of 1 sites"):
        round.answer(ABC[0], round.sum_of(ABC[1]).message(), [ABC[1]])
    with pytest.raises(Refused, match="a sum of 2 sites"):
        round.answer(ABC[0], round.sum_of(*ABC[:2]).message(), ABC[:2])


@pytest.mark.parametrize(
    ("summed", "claimed"),
    [
        (ABC, names(5)[:4]),
        (names(5)[:4], ABC),
        (ABC, (ABC[0], ABC[1], "site-003")),
        ((ABC[0], ABC[0], ABC[1]), ABC),
        ((*ABC, ABC[0]), ABC),
    ],
)
def test_a_sum_of_others_than_the_claimed_members_is_refused(round, summed, claimed):
    with pytest.raises(Refused, match="ciphertext 0 of a sum is not"):
        round.answer(ABC[0], round.sum_of(*summed).message(), claimed)


def test_a_ciphertext_of_another_round_is_refused(group, round):
    later = Round(group, 1)
    with pytest.raises(Refused, match="not the sum"):
        later.answer(ABC[0], round.sum_of(*ABC).message(), ABC)
    mixed = later.sum_of(*ABC[:2])
    mixed.add(round.sealed[ABC[2]])
    with pytest.raises(Refused, match="not the sum"):
        later.answer(ABC[0], mixed.message(), ABC)


def test_ciphertexts_in_another_place_are_refused(round):
    ciphertexts = list(round.ring.read(round.sum_of(*ABC).message(), LENGTH))
    with pytest.raises(Refused, match="ciphertext 0"):
        round.answer(ABC[0], round.made(ciphertexts[::-1]), ABC)
    with pytest.raises(Refused, match="ciphertext 1"):
        round.answer(ABC[0], round.made([ciphertexts[0]] * 2), ABC)


def _multiplied(round, ciphertext, factor):
    """Multiplied, slot by slot, by `factor` [degree]."""
    plaintext, product = seal().Plaintext(), seal().Ciphertext()
    seal().BatchEncoder(round.ring.context).encode(factor.tolist(), plaintext)
    round.ring.evaluator.multiply_plain(ciphertext, plaintext, product)
    return product


def test_a_multiple_of_one_sites_ciphertext_is_refused(round):
    three = np.full(round.ring.degree, 3, dtype=np.uint64)
    tripled = [_multiplied(round, one, three) for one in round.ring.read(round.sum_of(ABC[0]).message(), LENGTH)]
    with pytest.raises(Refused, match="not the sum"):
        round.answer(ABC[0], round.made(tripled), ABC)


def test_clearing_the_data_of_others_by_multiplication_leaves_too_much_noise(round):
    """A + m (B + C), where m is 1 in the slots of tags and 0 elsewhere: the tag would be right, and the data A's alone."""
    mask = np.zeros(round.ring.degree, dtype=np.uint64)
    mask[-TAGS:] = 1
    single = round.ring.read(round.sum_of(ABC[0]).message(), LENGTH)
    others = round.ring.read(round.sum_of(*ABC[1:]).message(), LENGTH)
    forged = [round.ring.plus(one, _multiplied(round, rest, mask)) for one, rest in zip(single, others, strict=True)]
    with pytest.raises(Refused, match=r"\(0 bits of noise budget, at least"):
        round.answer(ABC[0], round.made(forged), ABC)


def test_noise_alone_is_refused_though_the_sum_would_open_right():
    """A + B + C + 2^4 times an encryption of 0, made by who holds the key, in a set with room for a thousand sites."""
    round = Round(Group(3, most=1000))
    cipher = round.group.post.halves[ABC[0]]._keys.of(ABC[0], "run-1").cipher
    zero, fresh = seal().Plaintext(), seal().Ciphertext()
    seal().BatchEncoder(round.ring.context).encode([0] * round.ring.degree, zero)
    noisy = []
    for ciphertext in round.ring.read(round.sum_of(*ABC).message(), LENGTH):
        cipher._encryptor.encrypt_symmetric(zero, fresh)
        for _ in range(4):
            round.ring.evaluator.add_inplace(fresh, fresh)
        noisy.append(round.ring.plus(ciphertext, fresh))
    assert np.array_equal(cipher._slots(noisy[0])[: round.ring.slots], round.plain(*ABC)[: round.ring.slots])
    with pytest.raises(Refused, match=r"\([345] bits of noise budget, at least 6 expected"):
        round.answer(ABC[0], round.made(noisy), ABC)
    assert np.array_equal(round.answer(ABC[0], round.sum_of(*ABC).message(), ABC), round.plain(*ABC))


def test_what_the_server_adds_is_not_found(round):
    """The limit of tags: they say whose messages are in a sum, not that nothing known was added to it."""
    added = np.zeros(round.ring.degree, dtype=np.uint64)
    added[:10] = 5
    plaintext = seal().Plaintext()
    seal().BatchEncoder(round.ring.context).encode(added.tolist(), plaintext)
    ciphertexts = list(round.ring.read(round.sum_of(*ABC).message(), LENGTH))
    round.ring.evaluator.add_plain_inplace(ciphertexts[0], plaintext)
    found = round.answer(ABC[0], round.made(ciphertexts), ABC)
    modulus = np.uint64(round.ring.modulus)
    assert np.array_equal((found[:10] + modulus - round.plain(*ABC)[:10]) % modulus, np.full(10, 5))


def test_a_second_sum_of_the_exchange_is_refused(round):
    four = names(5)[:4]
    first = round.sum_of(*ABC).message()
    assert np.array_equal(round.answer(ABC[0], first, ABC), round.plain(*ABC))
    with pytest.raises(Refused, match="has opened another sum of this exchange"):
        round.answer(ABC[0], round.sum_of(*four).message(), four)
    assert np.array_equal(
        round.answer(ABC[0], first, ABC), round.plain(*ABC)
    )  # the same again, for an answer that was lost


def test_another_ciphertext_of_the_same_members_is_refused(round):
    round.answer(ABC[0], round.sum_of(*ABC).message(), ABC)
    other = list(round.ring.read(round.sum_of(*ABC).message(), LENGTH))
    plaintext = seal().Plaintext()
    seal().BatchEncoder(round.ring.context).encode([1], plaintext)
    round.ring.evaluator.add_plain_inplace(other[0], plaintext)
    with pytest.raises(Refused, match="has opened another sum"):
        round.answer(ABC[0], round.made(other), ABC)


def test_a_second_sum_is_refused_after_a_restart(tmp_path):
    group = Group(5, home=replace(Home.simulated(names(5)), folder=tmp_path))
    round = Round(group)
    round.answer(ABC[0], round.sum_of(*ABC).message(), ABC)
    group.restart(ABC[0])
    four = names(5)[:4]
    with pytest.raises(Refused, match="has opened another sum"):
        round.answer(ABC[0], round.sum_of(*four).message(), four)
    (path,) = (tmp_path / ABC[0]).glob("he-opened-*")
    path.write_bytes(path.read_bytes() + b'{"exchange": "cut sho')
    group.restart(ABC[0])
    with pytest.raises(Refused, match="has opened another sum"):
        round.answer(ABC[0], round.sum_of(*four).message(), four)
    assert path.read_bytes().endswith(b"\n")
    path.write_bytes(b"{}\n")
    group.restart(ABC[0])
    with pytest.raises(IdentityError, match="is damaged"):
        round.answer(ABC[0], round.sum_of(*four).message(), four)


def test_disjoint_groups_of_one_exchange_are_opened():
    group = Group(6)
    round = Round(group)
    groups = {0: group.names[:3], 1: group.names[3:]}
    opened = group.carrier.open(round.talk, {g: round.sum_of(*sites) for g, sites in groups.items()}, groups)
    for g, sites in groups.items():
        assert np.array_equal(opened[g], round.plain(*sites))


@pytest.mark.parametrize(
    ("members", "error", "why"),
    [
        (["site-000", "site-001", "sybil"], Refused, "a sum claims sybil"),
        (["site-000", "site-000", "site-001"], Exception, "not a list of different names"),
        ("abc", Exception, "not a list of different names"),
        ([1, 2, 3], Exception, "not a list of different names"),
    ],
)
def test_members_that_are_not_known_are_refused(round, members, error, why):
    with pytest.raises(error, match=why):
        list(round.talk.ask("reveal", ["site-000"], meta={"members": members, "length": LENGTH}))


@pytest.mark.parametrize("length", [-1, 1.5, None, 10**15, LENGTH + 5000])
def test_a_length_that_does_not_fit_is_refused(round, length):
    with pytest.raises(MessageError):
        round.answer(ABC[0], round.sum_of(*ABC).message(), ABC, length)


def test_the_next_member_opens_where_the_first_says_nothing(round):
    round.group.post.silent = {("reveal", ABC[0])}
    round.group.post.asked = []
    found = round.group.opened(round.talk, round.sum_of(*ABC), ABC)
    round.group.post.silent = set()
    assert np.array_equal(found, round.plain(*ABC))
    assert round.group.post.asked == [("reveal", ABC[0]), ("reveal", ABC[1])]


def test_where_nobody_opens_the_reasons_are_told(round):
    with pytest.raises(
        QuorumLost, match=r"no site opened .* 3 sites: site-000: ciphertext 0 of a sum is not .*site-002: "
    ):
        round.group.opened(round.talk, round.sum_of(*ABC[:2]), ABC)
    with pytest.raises(QuorumLost, match="2 sites are in an encrypted sum"):
        round.group.opened(round.talk, round.sum_of(*ABC[:2]), ABC[:2])


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"elements": torch.zeros(LENGTH + 1, dtype=torch.int64)},
        {"elements": torch.zeros(LENGTH)},
        {"elements": torch.full((LENGTH,), -1, dtype=torch.int64)},
    ],
)
def test_an_answer_of_another_form_is_passed_over(round, answer):
    round.group.post.tamper = lambda site, message: (
        Message(stage=message.stage, meta=message.meta, arrays=answer) if site == ABC[0] else message
    )
    found = round.group.opened(round.talk, round.sum_of(*ABC), ABC)
    round.group.post.tamper = lambda site, message: message
    assert np.array_equal(found, round.plain(*ABC))


def test_a_site_with_another_key_spoils_the_sum_and_it_is_found(round):
    stranger = Cipher(round.ring, bytes(64)).encrypt(
        round.uploads[ABC[2]], Tags(bytes(32), round.talk.bound(), ABC[2], round.ring.modulus)
    )
    total = round.sum_of(*ABC[:2])
    total.add(stranger)
    with pytest.raises(Refused, match="not the sum"):
        round.answer(ABC[0], total.message(), ABC)


def test_tags_differ_by_key_exchange_site_and_place_and_add_up():
    modulus = 2**46 + 1

    def tags(key=bytes(32), label=b"one", site="a"):
        return Tags(key, label, site, modulus).next(2)

    seen = [tags(), tags(key=bytes(31) + b"1"), tags(label=b"other"), tags(site="b"), tags(label=b"on", site="ea")]
    assert len({one.tobytes() for pair in seen for one in pair}) == 10
    assert all(one.shape == (2, TAGS) and int(one.max()) < modulus for one in seen)
    both = SumOfTags(bytes(32), b"one", ("a", "b"), modulus)
    for place in range(2):
        assert np.array_equal(both.next(), (seen[0][place] + seen[3][place]) % np.uint64(modulus))


@pytest.mark.parametrize("bits", [8, 12, 16, 20, 24])
def test_a_tag_is_never_guessed(bits):
    """128 bits are enough against guessing; 1200 bits against short multipliers (docs/he.md)."""
    for sites in (3, 10, 100, 1000):
        assert TAGS * choose(Field(bits=bits, sites=sites)).payload >= 1200


def said(round, arrays, **more):
    meta = {"members": list(ABC), "length": LENGTH, "asked": round.talk.asked.hex(), "abstained": [], **more}
    (reply,) = list(round.talk.ask("reveal", [ABC[0]], meta=meta, arrays=arrays))
    return reply.message.arrays["elements"].numpy().view(np.uint64)


def test_a_sum_of_answers_to_another_question_is_refused(round):
    sums = round.sum_of(*ABC).message()
    with pytest.raises(Refused, match="not the sum of what its 3 members sent"):
        said(round, sums, asked=bytes(31).hex() + "01")
    other = round.group.carrier.accumulator(LENGTH)
    for site in ABC:  # one of them was asked something else
        asked = replace(round.talk, asked=bytes(31) + b"1") if site == ABC[1] else round.talk
        other.add(round.group.sealed(asked, site, round.uploads[site]))
    for asked in (bytes(32), bytes(31) + b"1"):
        with pytest.raises(Refused, match="not the sum of what its 3 members sent"):
            said(round, other.message(), asked=asked.hex())
    assert np.array_equal(said(round, sums), round.plain(*ABC))


@pytest.mark.parametrize("asked", [None, "", "00", "x" * 64, 7])
def test_a_request_to_open_says_what_was_asked(round, asked):
    with pytest.raises(MessageError, match="does not say what its members were asked"):
        said(round, round.sum_of(*ABC).message(), asked=asked)


def test_who_abstained_is_in_the_tags(round):
    request = Request(message=Message(stage="contribute", meta={"exchange": round.talk.exchange.to_meta()}))
    nothing = round.group.post.halves["site-003"].seal(
        "site-003", np.zeros(LENGTH, dtype=np.uint64), request, round.talk.asked, abstained=True
    )
    total = round.sum_of(*ABC)
    total.add(nothing)
    four, sums = [*ABC, "site-003"], total.message()
    with pytest.raises(Refused, match="not the sum"):
        said(round, sums, members=four)
    with pytest.raises(Refused, match="not the sum"):
        said(round, sums, members=four, abstained=[ABC[1]])
    with pytest.raises(Refused, match="2 of the 4 sites of a sum gave something"):
        said(round, sums, members=four, abstained=["site-003", ABC[1]])
    with pytest.raises(MessageError, match="not a list of names"):
        said(round, sums, members=four, abstained=None)
    assert np.array_equal(said(round, sums, members=four, abstained=["site-003"]), round.plain(*ABC))
