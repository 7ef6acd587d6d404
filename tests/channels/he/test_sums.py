import ast
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.channels.he.group import Group, elements, plain_sum
from wardround.channels.he.layers import ciphertexts
from wardround.channels.he.ring import CIPHERTEXTS, LENGTHS
from wardround.encoding.codec import encode
from wardround.encoding.field import Field
from wardround.encoding.layout import layout_of
from wardround.encoding.packing import pack, unpack
from wardround.errors import ConfigError, MessageError
from wardround.types import Contribution, Term


@pytest.fixture(scope="module")
def five():
    group = Group(5)
    group.ready(group.talk())
    return group


@pytest.mark.parametrize("count", [3, 10, 100])
def test_the_opened_sum_is_the_sum_of_integers(count):
    group = Group(count)
    talk = group.talk()
    group.ready(talk)
    modulus = group.carrier.modulus
    uploads = elements(modulus, count, 4200)  # two ciphertexts, uniform in Z_t as masked elements are
    total = group.summed(talk, dict(zip(group.names, uploads, strict=True)))
    assert np.array_equal(group.opened(talk, total, group.names), plain_sum(uploads, modulus))


@settings(max_examples=15, deadline=None)
@given(length=st.integers(1, 9000), members=st.integers(3, 5), seed=st.integers(0, 2**32))
def test_sums_of_any_length_over_any_members(five, length, members, seed):
    talk = five.talk()
    uploads = elements(five.carrier.modulus, members, length, seed)
    chosen = five.names[-members:]
    total = five.summed(talk, dict(zip(chosen, uploads, strict=True)))
    assert np.array_equal(five.opened(talk, total, chosen), plain_sum(uploads, five.carrier.modulus))


@pytest.mark.parametrize(("bits", "count"), [(8, 3), (12, 5), (16, 3), (16, 7), (24, 4)])
def test_the_largest_digits_of_all_sites_add_up_without_a_carry(bits, count):
    group = Group(count, bits=bits)
    field = Field(bits=bits, sites=count)
    per = group.carrier.per_element(field)
    digits = np.full(1000, 2**bits - 1, dtype=np.uint32)
    packed = pack(iter([digits]), 1000, field.width, per)
    talk = group.talk()
    group.ready(talk)
    total = group.summed(talk, dict.fromkeys(group.names, packed))
    found = group.opened(talk, total, group.names)
    assert np.concatenate(list(unpack(found, 1000, field.width, per))).tolist() == [count * (2**bits - 1)] * 1000


def test_a_message_is_two_arrays_and_shorter_than_float32():
    """16 bits, 100 sites: two parameters a slot, 57-bit residues; 24 full ciphertexts."""
    group = Group(3, most=100)
    talk = group.talk()
    group.ready(talk)
    slots = group.carrier.ring.slots
    (upload,) = elements(2**46, 1, 24 * slots)
    arrays = group.sealed(talk, group.names[0], upload)
    assert arrays.keys() == {CIPHERTEXTS, LENGTHS}
    assert arrays[CIPHERTEXTS].dtype == torch.uint8
    assert len(arrays[LENGTHS]) == 24
    assert len(arrays[CIPHERTEXTS]) < 0.99 * 4 * 2 * len(upload)


def test_the_same_elements_never_give_the_same_ciphertext(five):
    talk = five.talk()
    upload = np.zeros(10, dtype=np.uint64)
    one, other = (five.sealed(talk, five.names[0], upload) for _ in range(2))
    assert not torch.equal(one[CIPHERTEXTS][:4000], other[CIPHERTEXTS][:4000])


def test_elements_are_not_changed_and_must_be_below_the_modulus(five):
    talk = five.talk()
    (upload,) = elements(five.carrier.modulus, 1, 10)
    before = upload.copy()
    five.sealed(talk, five.names[0], upload)
    assert np.array_equal(upload, before)
    upload[3] = five.carrier.modulus
    with pytest.raises(MessageError, match="less than the modulus"):
        five.sealed(talk, five.names[0], upload)


def _damaged(arrays, kind):
    data, lengths = arrays[CIPHERTEXTS].clone(), arrays[LENGTHS].clone()
    if kind == "nothing":
        return {}
    if kind == "another dtype":
        return {CIPHERTEXTS: data.to(torch.int32), LENGTHS: lengths}
    if kind == "bytes left over":
        return {CIPHERTEXTS: torch.cat([data, data[:5]]), LENGTHS: lengths}
    if kind == "cut off":
        return {CIPHERTEXTS: data[:-1], LENGTHS: lengths}
    if kind == "cut off, and says so":
        lengths[-1] -= 100
        return {CIPHERTEXTS: data[:-100], LENGTHS: lengths}
    if kind == "a ciphertext less":
        return {CIPHERTEXTS: data[: int(lengths[0])], LENGTHS: lengths[:1]}
    if kind == "a negative length":
        lengths[0], lengths[1] = -1, len(data) + 1
        return {CIPHERTEXTS: data, LENGTHS: lengths}
    if kind == "an absurd length":
        lengths[0] = 2**62
        return {CIPHERTEXTS: data, LENGTHS: lengths}
    data[int(lengths[0]) :] = 7  # the first is whole, the second is not: the first was added when the second is found
    return {CIPHERTEXTS: data, LENGTHS: lengths}


KINDS = ("nothing", "bytes left over", "another dtype", "cut off", "cut off, and says so", "a ciphertext less",
         "a negative length", "an absurd length", "the second is noise")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [True, False])
def test_a_damaged_message_leaves_the_sum_as_it_was(five, kind, first):
    talk = five.talk()
    uploads = elements(five.carrier.modulus, 4, 5000)
    total = five.carrier.accumulator(5000)
    sealed = [five.sealed(talk, site, upload) for site, upload in zip(five.names, uploads, strict=False)]
    if not first:
        total.add(sealed[0])
    before = total.message()
    with pytest.raises(MessageError):
        total.add(_damaged(sealed[3], kind))
    after = total.message()
    assert torch.equal(after[CIPHERTEXTS], before[CIPHERTEXTS])
    for arrays in sealed[0 if first else 1 : 3]:
        total.add(arrays)
    assert np.array_equal(five.opened(talk, total, five.names[:3]), plain_sum(uploads[:3], five.carrier.modulus))


def test_a_ciphertext_of_other_parameters_is_refused(five):
    other = Group(3, bits=24)
    talk = other.talk()
    other.ready(talk)
    foreign = other.sealed(talk, other.names[0], np.zeros(10, dtype=np.uint64))
    with pytest.raises(MessageError, match=r"ciphertext 0 of 1 is none of"):
        five.carrier.accumulator(10).add(foreign)


def test_ciphertexts_that_cancel_out_are_refused(five):
    """c - c decrypts without a key: SEAL calls it transparent."""
    talk = five.talk()
    total = five.summed(talk, {five.names[0]: np.zeros(3, dtype=np.uint64)})
    ring = five.carrier.ring
    (one,) = ring.read(total.message(), 3)
    ring.evaluator.negate_inplace(one)
    before = total.message()
    with pytest.raises(MessageError, match="cannot be added"):
        total.add(ring.write([one], 1, fresh=False))
    assert torch.equal(total.message()[CIPHERTEXTS], before[CIPHERTEXTS])


@settings(max_examples=60, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_altered_bytes_are_a_message_error_or_a_ciphertext(five, changes):
    arrays = five.sealed(five.talk(), five.names[0], np.zeros(3, dtype=np.uint64))
    altered = arrays[CIPHERTEXTS].clone()
    for place, byte in changes:
        altered[place % len(altered)] = byte
    try:
        five.carrier.accumulator(3).add({**arrays, CIPHERTEXTS: altered})
    except MessageError:
        return


HE = Path(importlib.import_module("wardround.channels.he").__file__).parent


def _imported_by(module):
    """Modules of this package that `module` imports, and theirs."""
    found, due = set(), [module]
    while due:
        name = due.pop()
        if name in found:
            continue
        found.add(name)
        for node in ast.walk(ast.parse((HE / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wardround.channels.he."):
                due.append(node.module.rpartition(".")[2])
            elif isinstance(node, ast.ImportFrom) and node.module == "wardround.channels.he":
                due += [alias.name for alias in node.names]
    return found


def _words(name):
    tree = ast.parse((HE / f"{name}.py").read_text(encoding="utf-8"))
    return {
        word
        for node in ast.walk(tree)
        for word in (getattr(node, "attr", None), getattr(node, "id", None), getattr(node, "value", None))
        if isinstance(word, str)
    }


def test_the_server_has_no_type_that_could_decrypt():
    keys = {"SecretKey", "Decryptor", "KeyGenerator", "Encryptor", "secret_key", "decrypt"}
    modules = _imported_by("server")
    assert modules == {"server", "ring", "parameters", "scratch", "stages"}
    assert [name for name in modules if _words(name) & keys] == []
    assert _words("bfv") >= {"Decryptor", "KeyGenerator"}  # the search does find them where they are


def test_importing_the_server_imports_nothing_of_the_sites():
    code = (
        "import sys, wardround.channels.he.server as s; s.BfvCarrier(bits=16, sites=3);"
        "print(sorted(m for m in sys.modules if m.startswith('wardround.channels.he.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([f"wardround.channels.he.{name}" for name in sorted(_imported_by("server"))])


def test_without_tenseal_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tenseal.sealapi", None)
    from wardround.channels.he.ring import seal

    with pytest.raises(ConfigError, match=r'pip install "wardround\[he\]"'):
        seal()


def test_ciphertexts_of_each_layer_are_shares_of_one_vector():
    """With two digits a slot and 4064 slots a ciphertext, a layer of 8128 digits takes one; layers lie side by side."""
    step = {"layer.weight": torch.zeros(1, 8128), "layer.bias": torch.zeros(1, 16)}
    term = Term(arrays=step, weights=torch.ones(1), maximum=1.0)
    layout = layout_of(Contribution(sites=("a",), terms={"step": term}), Field(bits=16, sites=100), part="values")
    shares = ciphertexts(layout, 2, 4064)
    assert shares["step/layer.weight"] == 1.0
    assert shares["step/layer.bias"] == 16 / 8128
    assert sum(shares.values()) == pytest.approx(layout.size / 8128)


def test_an_encoded_contribution_crosses_encryption_unchanged():
    group = Group(4)
    field = Field(bits=16, sites=4)
    per = group.carrier.per_element(field)
    step = {"w": torch.linspace(-1, 1, 4000).repeat(4, 1)}
    contribution = Contribution(
        sites=group.names, terms={"step": Term(arrays=step, weights=torch.tensor([1.0, 2, 3, 4]), maximum=4.0)}
    )
    layout = layout_of(contribution, field, part="values")
    packed = [
        pack(
            encode(contribution, k, layout, field, {"step/w": 0}, rounding="nearest", seed=0, signs=0),
            layout.size, field.width, per,
        )
        for k in range(4)
    ]  # fmt: skip
    talk = group.talk()
    group.ready(talk)
    found = group.opened(talk, group.summed(talk, dict(zip(group.names, packed, strict=True))), group.names)
    assert np.array_equal(found, sum(packed))
