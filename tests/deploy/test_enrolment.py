"""From a project's file to pinned keys: every way in that must work, and those that must not."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.parties import SITES, SUBMITTER, Parties, enrolled, initialised, provisioned, write_project
from wardround.deploy import canonical, checkup, enrolling, kit, pki
from wardround.deploy.enrolment import Enrolment, Roster, SigningRequest, changes, same_code
from wardround.deploy.identity import Identity, IdentityRefused
from wardround.deploy.project import read_project
from wardround.errors import ConfigError, IdentityError, MessageError, Refused, WardroundError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    enrolled(folder)
    return folder


@pytest.fixture
def parties(made: Path, tmp_path: Path) -> Parties:
    """Enrolled parties that a test may spoil."""
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    return Parties(
        coordinator=kit.coordinator_folder(folder / "coordinator"),
        sites={name: kit.party_folder(folder / name) for name in SITES},
        submitter=kit.party_folder(folder / SUBMITTER),
    )


def test_all_pin_the_same_keys_and_only_owners_can_read_secrets(parties: Parties) -> None:
    pins = parties.coordinator.pins()
    for party in (*parties.sites.values(), parties.submitter):
        assert party.pins() == pins
        assert pins.keys[party.name] == party.identity().public
        parties.coordinator.pins().verify(party.name, b"said", party.identity().sign(b"said"))
    assert pins.roles == {"coordinator": "coordinator", SUBMITTER: "submitter", **dict.fromkeys(SITES, "site")}
    secret = {"identity.pem", "node.key", "authority.key", "server.key", "tokens.json", "enrolment.json"}
    for folder in (parties.coordinator, *parties.sites.values(), parties.submitter):
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
        for path in folder.path.rglob("*"):
            if path.name in secret:
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_keys_do_not_leave_the_folder_they_were_made_in(parties: Parties) -> None:
    coordinator = "".join(p.read_text(errors="replace") for p in parties.coordinator.path.rglob("*") if p.is_file())
    for party in parties.sites.values():
        for name in ("identity.pem", "node.key"):
            secret = (party.path / name).read_text().splitlines()[1]
            assert secret not in coordinator
            assert secret not in (party.path / "request.json").read_text()


def test_node_keys_are_in_the_form_that_flower_takes(parties: Parties) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

    keys = parties.coordinator.node_keys()
    assert sorted(keys) == sorted(SITES)
    for name, path in keys.items():
        private = load_ssh_private_key(parties.sites[name].node_key.read_bytes(), password=None)
        public = load_ssh_public_key(path.read_bytes())
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        assert isinstance(private.curve, ec.SECP384R1)
        assert private.public_key() == public


def test_the_address_to_dial_is_the_first(parties: Parties, tmp_path: Path) -> None:
    assert parties.sites["zurich"].address == "localhost:8443"
    coordinator = provisioned(tmp_path / "six", coordinator={"addresses": ["2001:db8::1"]})
    site = initialised(tmp_path / "six", coordinator, ["zurich"])["zurich"]
    assert site.address == "[2001:db8::1]:443"


# ------------------------------------------------------------------------------------------------------- refusals


def test_a_folder_with_something_in_it_is_not_overwritten(parties: Parties, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not an empty folder"):
        enrolling.provision(write_project(tmp_path / "project.yaml"), parties.coordinator.path)
    before = (parties.sites["zurich"].path / "identity.pem").read_bytes()
    coordinator = provisioned(tmp_path / "other")
    with pytest.raises(ConfigError, match="not an empty folder"):
        enrolling.init_party(coordinator.path / "enrolments" / "zurich.json", parties.sites["zurich"].path)
    assert (parties.sites["zurich"].path / "identity.pem").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sites": ["../../etc"]}, r"\.\./\.\./etc"),
        ({"sites": ["a/b"]}, "expected 1 to 64"),
        ({"sites": ["A"]}, "expected 1 to 64"),
        ({"sites": ["zurich", "zurich"]}, "named twice"),
        ({"sites": ["coordinator"]}, "named twice"),
        ({"sites": []}, "sites"),
        ({"project": ".."}, "expected 1 to 64"),
        ({"spy": 1}, "unknown key 'spy'"),
        ({"coordinator": {"addresses": ["https://x"]}}, "host name"),
        ({"coordinator": {"addresses": ["a b"]}}, "host name"),
        ({"coordinator": {"addresses": ["x"], "port": 70000}}, "port"),
        ({"validity": {"identity": 0}}, "validity.identity"),
    ],
)
def test_a_project_that_cannot_be_is_refused(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    path = write_project(tmp_path / "project.yaml", **given)
    with pytest.raises(ConfigError, match=words):
        read_project(path)
    with pytest.raises(ConfigError, match=words):
        enrolling.provision(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_request_without_the_token_is_refused(parties: Parties, tmp_path: Path) -> None:
    coordinator = provisioned(tmp_path / "fresh")
    site = initialised(tmp_path / "fresh", coordinator, ["zurich"])["zurich"]
    enrolment = site.enrolment
    identity = Identity.generate("zurich")
    forged = enrolling._request(enrolment, identity, tmp_path, None).with_token("00" * 32)
    (tmp_path / "forged.json").write_bytes(forged.to_bytes())
    with pytest.raises(IdentityError, match="does not prove that it has the enrolment file"):
        enrolling.enrol(coordinator.path, [tmp_path / "forged.json"])
    assert coordinator.roster().serial == 0
    enrolling.enrol(coordinator.path, [site.path / "request.json"])
    # the token is used up: who finds the enrolment file later cannot take the place
    late = enrolling._request(enrolment, identity, tmp_path, None).with_token(enrolment.token)
    (tmp_path / "late.json").write_bytes(late.to_bytes())
    with pytest.raises(IdentityError, match="not signed with that key"):
        enrolling.enrol(coordinator.path, [tmp_path / "late.json"])


def test_requests_are_taken_all_or_none_and_again_without_harm(tmp_path: Path) -> None:
    coordinator = provisioned(tmp_path)
    sites = initialised(tmp_path, coordinator, SITES)
    bad = tmp_path / "bad.json"
    bad.write_bytes(b"{}")
    files = [site.path / "request.json" for site in sites.values()]
    with pytest.raises(MessageError):
        enrolling.enrol(coordinator.path, [*files, bad])
    assert [entry.name for entry in coordinator.roster().entries] == ["coordinator"]
    first = enrolling.enrol(coordinator.path, files)
    assert enrolling.enrol(coordinator.path, files) == first


@pytest.mark.parametrize(
    "member", ["public", "node", "name", "project", "role", "made", "signature", "node_proof", "mac"]
)
def test_an_altered_request_is_refused(tmp_path: Path, member: str) -> None:
    coordinator = provisioned(tmp_path)
    sites = initialised(tmp_path, coordinator, ["zurich", "budapest"])
    request, other = (SigningRequest.from_bytes((site.path / "request.json").read_bytes()) for site in sites.values())
    value = {"role": "submitter", "project": "other", "made": "2026-01-01T00:00:00.000+00:00"}.get(member)
    altered = replace(request, **{member: value or getattr(other, member)})
    path = tmp_path / "altered.json"
    path.write_bytes(altered.to_bytes())
    with pytest.raises((IdentityError, MessageError)):
        enrolling.enrol(coordinator.path, [path])
    assert coordinator.roster().entry("zurich") is None


def test_one_key_for_two_parties_is_refused(tmp_path: Path) -> None:
    coordinator = provisioned(tmp_path)
    sites = initialised(tmp_path, coordinator, ["zurich", "budapest"])
    enrolling.enrol(coordinator.path, [sites["zurich"].path / "request.json"])
    identity = Identity("budapest", sites["zurich"].identity().private)
    twin = enrolling._request(sites["budapest"].enrolment, identity, tmp_path, None).with_token(
        sites["budapest"].enrolment.token
    )
    (tmp_path / "twin.json").write_bytes(twin.to_bytes())
    with pytest.raises(IdentityError, match="has the key of zurich"):
        enrolling.enrol(coordinator.path, [tmp_path / "twin.json"])
    roster = coordinator.roster()
    zurich = roster.entry("zurich")
    assert zurich is not None
    sybil = replace(roster, entries=(*roster.entries, replace(zurich, name="graz"))).sealed(coordinator.identity())
    with pytest.raises(IdentityError, match="one key to two parties"):
        Roster.from_bytes(sybil.to_bytes())


def test_a_name_that_the_project_lacks_is_refused_until_it_is_added(tmp_path: Path) -> None:
    coordinator = provisioned(tmp_path, SITES[:2])
    other = provisioned(tmp_path / "other", SITES)
    site = initialised(tmp_path / "other", other, ["zurich"])["zurich"]
    with pytest.raises(ConfigError, match="no such name"):
        enrolling.enrol(coordinator.path, [site.path / "request.json"])
    write_project(coordinator.path / "project.yaml", SITES)
    before = coordinator.tokens()
    enrolling.enrol(coordinator.path, [])
    assert {**coordinator.tokens(), **before} == coordinator.tokens()
    joined = initialised(tmp_path, coordinator, ["zurich"])["zurich"]
    assert enrolling.enrol(coordinator.path, [joined.path / "request.json"]).entry("zurich") is not None


def test_an_enrolment_file_that_was_altered_is_refused(tmp_path: Path) -> None:
    coordinator = provisioned(tmp_path)
    data = (coordinator.path / "enrolments" / "zurich.json").read_bytes()
    evil = tmp_path / "evil.json"
    enrolment = Enrolment.from_bytes(data)
    for altered in (
        replace(enrolment, addresses=("evil.example.org",)),
        replace(enrolment, public=Identity.generate("x").public.hex()),
        replace(enrolment, authority="-----BEGIN"),
        replace(enrolment, name="../../zurich"),
        replace(enrolment, role="coordinator"),
    ):
        evil.write_bytes(altered.to_bytes())
        with pytest.raises(MessageError):
            enrolling.init_party(evil, tmp_path / "zurich")
        assert not (tmp_path / "zurich").exists()


# -------------------------------------------------------------------------------------------------------- joining


def test_new_names_need_the_code_that_others_read_out(tmp_path: Path) -> None:
    coordinator = provisioned(tmp_path)
    sites = initialised(tmp_path, coordinator, SITES)
    roster = enrolling.enrol(coordinator.path, [site.path / "request.json" for site in sites.values()])
    file, zurich = coordinator.path / "roster.json", sites["zurich"]
    with pytest.raises(Refused, match=roster.code):
        enrolling.join(zurich.path, file)
    with pytest.raises(IdentityError, match="is not this roster's"):
        enrolling.join(zurich.path, file, "AAAA-" * 7 + "AAAA")
    with pytest.raises(IdentityError, match="has no roster yet"):
        zurich.roster()
    enrolling.join(zurich.path, file, roster.code.lower().replace("-", " "))
    assert enrolling.join(zurich.path, file) == []


def test_the_code_is_another_one_for_other_keys_names_or_roles(parties: Parties) -> None:
    roster = parties.coordinator.roster()
    assert len(roster.code.replace("-", "")) * 5 == 160
    zurich = roster.entry("zurich")
    assert zurich is not None
    rest = tuple(entry for entry in roster.entries if entry.name != "zurich")
    codes = {roster.code, replace(roster, entries=rest).code}
    for changed in (
        {"public": Identity.generate("zurich").public.hex()}, {"name": "graz"}, {"role": "submitter"},
    ):  # fmt: skip
        codes.add(replace(roster, entries=(*rest, replace(zurich, **changed))).code)
    assert len(codes) == 5
    assert same_code(roster.code, roster.code)


def test_a_coordinator_that_puts_another_key_in_a_sites_place_is_found(parties: Parties, tmp_path: Path) -> None:
    roster, coordinator = parties.coordinator.roster(), parties.coordinator.identity()
    zurich = roster.entry("zurich")
    assert zurich is not None
    mallory = Identity.generate("zurich")
    others = tuple(entry for entry in roster.entries if entry.name != "zurich")
    swapped = replace(roster, serial=roster.serial + 1, entries=(*others, replace(zurich, public=mallory.public.hex())))
    file = tmp_path / "swapped.json"
    file.write_bytes(swapped.sealed(coordinator).to_bytes())
    with pytest.raises(Refused, match="NOT proved with the old key"):
        enrolling.join(parties.sites["budapest"].path, file)
    with pytest.raises(IdentityError, match="somebody enrolled in its place"):
        enrolling.join(parties.sites["zurich"].path, file, swapped.code)
    # a sybil beside the others
    extra = replace(zurich, name="graz", public=Identity.generate("graz").public.hex())
    file.write_bytes(
        replace(roster, serial=roster.serial + 1, entries=(*roster.entries, extra)).sealed(coordinator).to_bytes()
    )
    with pytest.raises(Refused, match="graz"):
        enrolling.join(parties.sites["budapest"].path, file)
    assert parties.sites["budapest"].roster() == roster


def test_an_older_a_forked_or_a_strangers_roster_is_refused(parties: Parties, tmp_path: Path) -> None:
    roster, coordinator = parties.coordinator.roster(), parties.coordinator.identity()
    file, site = tmp_path / "roster.json", parties.sites["budapest"]
    code = roster.code
    for bad, words in (
        (replace(roster, serial=roster.serial - 1), "an older or forked one"),
        (replace(roster, made="2026-01-01T00:00:00.000+00:00"), "an older or forked one"),
        (replace(roster, project="other", serial=9), "is of project other"),
    ):
        file.write_bytes(bad.sealed(coordinator).to_bytes())
        with pytest.raises(IdentityError, match=words):
            enrolling.join(site.path, file, code)
    stranger = Identity.generate("coordinator")
    own = replace(roster.coordinator, public=stranger.public.hex())
    others = tuple(entry for entry in roster.entries if entry.role != "coordinator")
    theirs = replace(roster, serial=9, entries=(*others, own)).sealed(stranger)
    file.write_bytes(theirs.to_bytes())
    with pytest.raises(IdentityRefused, match="another coordinator"):
        enrolling.join(site.path, file, theirs.code)
    file.write_bytes(replace(roster, serial=9, signature=theirs.signature).to_bytes())
    with pytest.raises(IdentityError, match="not signed by the coordinator it names"):
        enrolling.join(site.path, file, code)
    assert site.roster() == roster


def test_a_roster_in_which_a_revocation_was_taken_back_is_refused(parties: Parties, tmp_path: Path) -> None:
    before = parties.coordinator.roster()
    enrolling.revoke(parties.coordinator.path, "zurich")
    enrolling.join(parties.sites["budapest"].path, parties.roster_file)
    file = tmp_path / "roster.json"
    back = replace(before, serial=99).sealed(parties.coordinator.identity())
    file.write_bytes(back.to_bytes())
    with pytest.raises(IdentityRefused) as caught:
        enrolling.join(parties.sites["budapest"].path, file, back.code)
    assert caught.value.reason == "revoked"


# -------------------------------------------------------------------------------------------- rotation, revocation


def test_a_site_rotates_its_keys_and_others_need_no_code(parties: Parties) -> None:
    zurich, budapest = parties.sites["zurich"], parties.sites["budapest"]
    old, old_node = zurich.identity(), zurich.node_key.read_bytes()
    request = enrolling.rotate_party(zurich.path)
    assert zurich.identity().public == old.public  # in force until the roster is joined
    enrolling.enrol(parties.coordinator.path, [request])
    for site in (budapest, zurich):
        enrolling.join(site.path, parties.roster_file)
    new = zurich.identity()
    assert new.public != old.public
    assert zurich.node_key.read_bytes() != old_node
    assert not (zurich.path / "next").exists()
    assert parties.coordinator.node_keys()["zurich"].read_bytes() == (zurich.path / "node.pub").read_bytes()
    pins = budapest.pins()
    pins.verify("zurich", b"said", new.sign(b"said"))
    with pytest.raises(IdentityRefused):
        pins.verify("zurich", b"said", old.sign(b"said"))
    assert old.fingerprint in pins.revoked
    assert pins.signed_once("zurich", b"said", old.sign(b"said"))


def test_a_site_that_missed_a_rotation_joins_the_one_after(parties: Parties) -> None:
    for _ in range(2):
        enrolling.enrol(parties.coordinator.path, [enrolling.rotate_party(parties.sites["zurich"].path)])
        enrolling.join(parties.sites["zurich"].path, parties.roster_file)
    found = enrolling.join(parties.sites["budapest"].path, parties.roster_file)
    assert [change.proved for change in found if change.what == "key"] == [True]


def test_a_rotation_that_the_old_key_did_not_sign_is_refused(parties: Parties, tmp_path: Path) -> None:
    request = SigningRequest.from_bytes(enrolling.rotate_party(parties.sites["zurich"].path).read_bytes())
    assert request.rotation is not None
    thief = Identity.generate("zurich")
    forged = replace(request, rotation=replace(request.rotation, signature=thief.sign(b"x").hex()))
    file = tmp_path / "forged.json"
    file.write_bytes(forged.to_bytes())
    with pytest.raises(IdentityError, match="not signed with that key"):
        enrolling.enrol(parties.coordinator.path, [file])
    for member in ("old", "new"):
        file.write_bytes(
            replace(request, rotation=replace(request.rotation, **{member: thief.public.hex()})).to_bytes()
        )
        with pytest.raises(IdentityError, match="not signed with that key"):
            enrolling.enrol(parties.coordinator.path, [file])


def test_a_revoked_or_expired_key_vouches_for_no_other(parties: Parties) -> None:
    zurich = parties.sites["zurich"]
    request = enrolling.rotate_party(zurich.path)
    enrolling.revoke(parties.coordinator.path, "zurich")
    with pytest.raises(IdentityError, match="does not prove"):
        enrolling.enrol(parties.coordinator.path, [request])
    enrolling.revoke_here(zurich.path, "zurich")
    with pytest.raises(IdentityRefused, match="revoked"):
        enrolling.rotate_party(zurich.path)
    roster = parties.coordinator.roster()
    past = canonical.time_text(canonical.now() - timedelta(days=1))
    roster = replace(roster, entries=tuple(replace(entry, ends=past) for entry in roster.entries))
    parties.coordinator.write_roster(roster.sealed(parties.coordinator.identity()))
    request = enrolling.rotate_party(parties.sites["budapest"].path)
    with pytest.raises(IdentityRefused) as caught:
        enrolling.enrol(parties.coordinator.path, [request])
    assert caught.value.reason == "expired"


def test_a_revoked_site_is_out_and_comes_back_with_new_keys_alone(parties: Parties, tmp_path: Path) -> None:
    zurich, budapest = parties.sites["zurich"], parties.sites["budapest"]
    stolen = zurich.identity()
    enrolling.revoke(parties.coordinator.path, "zurich")
    enrolling.join(budapest.path, parties.roster_file)
    assert "zurich" not in parties.coordinator.node_keys()
    assert not (parties.coordinator.path / "nodes" / "zurich.pub").exists()
    with pytest.raises(IdentityRefused):
        budapest.pins().verify("zurich", b"said", stolen.sign(b"said"))
    with pytest.raises(IdentityError, match="has no zurich"):
        enrolling.join(zurich.path, parties.roster_file)
    with pytest.raises(IdentityError, match="was revoked"):
        enrolling.enrol(parties.coordinator.path, [zurich.path / "request.json"])
    again = enrolling.init_party(parties.coordinator.path / "enrolments" / "zurich.json", tmp_path / "zurich")
    roster = enrolling.enrol(parties.coordinator.path, [again.path / "request.json"])
    with pytest.raises(Refused, match="zurich"):  # a new key that nothing proves
        enrolling.join(budapest.path, parties.roster_file)
    enrolling.join(budapest.path, parties.roster_file, roster.code)
    budapest.pins().verify("zurich", b"said", again.identity().sign(b"said"))


def test_a_site_revokes_by_itself_without_the_coordinator(parties: Parties) -> None:
    budapest = parties.sites["budapest"]
    zurich = parties.sites["zurich"].identity()
    enrolling.revoke_here(budapest.path, "zurich")
    with pytest.raises(IdentityRefused, match="revoked"):
        budapest.pins().verify("zurich", b"said", zurich.sign(b"said"))
    parties.sites["cleveland"].pins().verify("zurich", b"said", zurich.sign(b"said"))
    (budapest.path / "revoked.json").write_text("{")
    with pytest.raises(IdentityError, match=r"revoked\.json is damaged"):
        budapest.pins()


def test_a_key_that_was_revoked_here_vouches_for_no_other_here(parties: Parties) -> None:
    budapest, zurich = parties.sites["budapest"], parties.sites["zurich"]
    enrolling.revoke_here(budapest.path, "zurich")  # stolen, and the coordinator does not know yet
    enrolling.enrol(parties.coordinator.path, [enrolling.rotate_party(zurich.path)])
    with pytest.raises(Refused, match="NOT proved"):
        enrolling.join(budapest.path, parties.roster_file)
    enrolling.join(parties.sites["cleveland"].path, parties.roster_file)
    enrolling.revoke_here(budapest.path, "coordinator")
    enrolling.rotate_coordinator(parties.coordinator.path, "identity")
    with pytest.raises(IdentityRefused, match="revoked here"):
        enrolling.join(budapest.path, parties.roster_file, parties.coordinator.roster().code)


def test_what_cannot_be_revoked_is_said(parties: Parties) -> None:
    with pytest.raises(ConfigError, match="is not enrolled"):
        enrolling.revoke(parties.coordinator.path, "graz")
    with pytest.raises(ConfigError, match="is the coordinator"):
        enrolling.revoke(parties.coordinator.path, "coordinator")
    with pytest.raises(ConfigError, match="expected 1 to 64"):
        enrolling.revoke(parties.coordinator.path, "../x")


def test_the_coordinator_rotates_its_identity_and_the_old_one_proves_it(parties: Parties) -> None:
    old = parties.coordinator.identity()
    enrolling.rotate_coordinator(parties.coordinator.path, "identity")
    new = parties.coordinator.identity()
    assert new.public != old.public
    for site in parties.sites.values():
        enrolling.join(site.path, parties.roster_file)
        site.pins().verify("coordinator", b"said", new.sign(b"said"))
        with pytest.raises(IdentityRefused):
            site.pins().verify("coordinator", b"said", old.sign(b"said"))


def test_an_identity_whose_rotation_was_cut_short_is_the_one_that_the_roster_has(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = parties.coordinator.identity().public
    with monkeypatch.context() as patch:
        patch.setattr(kit.CoordinatorFolder, "write_roster", _dies)
        with pytest.raises(KeyboardInterrupt):
            enrolling.rotate_coordinator(parties.coordinator.path, "identity")
    assert (
        parties.coordinator.identity().public == old == bytes.fromhex(parties.coordinator.roster().coordinator.public)
    )
    with monkeypatch.context() as patch:
        patch.setattr(enrolling, "_write_enrolments", _dies)
        patch.setattr(kit.CoordinatorFolder, "audit", _dies)
        with pytest.raises(KeyboardInterrupt):
            enrolling.rotate_coordinator(parties.coordinator.path, "identity")
    assert (
        parties.coordinator.identity().public == bytes.fromhex(parties.coordinator.roster().coordinator.public) != old
    )


def test_certificates_are_renewed_and_a_new_authority_is_known_before_it_is_used(parties: Parties) -> None:
    folder, zurich = parties.coordinator, parties.sites["zurich"]
    before = folder.server[0].read_bytes()
    pki.check_issued(folder.server[0], zurich.authority)
    enrolling.rotate_coordinator(folder.path, "authority")
    assert folder.server[0].read_bytes() == before
    pki.check_issued(folder.server[0], zurich.authority)
    enrolling.join(zurich.path, parties.roster_file)
    pki.check_issued(folder.server[0], zurich.authority)
    enrolling.rotate_coordinator(folder.path, "server")
    pki.check_issued(folder.server[0], zurich.authority)
    with pytest.raises(IdentityError, match="was not issued by"):
        pki.check_issued(folder.server[0], parties.sites["budapest"].authority)


# -------------------------------------------------------------------------------------------------------- looking


def test_check_finds_nothing_wrong_and_then_what_is(parties: Parties) -> None:
    for folder in (parties.coordinator, *parties.sites.values(), parties.submitter):
        assert {one.level for one in checkup.check(folder.path)} == {"ok"}
    zurich = parties.sites["zurich"]
    (zurich.path / "site.yaml").write_text("allow: {everything: true}\n")
    zurich.node_key.chmod(0o644)
    wrong = {one.what: one.text for one in checkup.check(zurich.path) if one.level == "error"}
    assert set(wrong) == {"policy", "node key"}
    assert "unknown key 'allow.everything'" in wrong["policy"]


def test_check_warns_before_an_end_and_says_so_after_it(parties: Parties) -> None:
    folder, today = parties.coordinator, canonical.now()
    ends = {"budapest": 20, "cleveland": -1}
    entries = tuple(
        replace(entry, ends=canonical.time_text(today + timedelta(days=ends[entry.name])))
        if entry.name in ends
        else entry
        for entry in folder.roster().entries
    )
    folder.write_roster(replace(folder.roster(), entries=entries).sealed(folder.identity()))
    levels = {one.what: one.level for one in checkup.check(folder.path)}
    assert (levels["budapest"], levels["cleveland"], levels["zurich"]) == ("warning", "error", "ok")
    enrolling.revoke(folder.path, "zurich")
    awaited = [one.text for one in checkup.check(folder.path) if one.what == "zurich"]
    assert awaited == ["not enrolled yet: their request is awaited"]


def test_check_tells_of_a_damaged_roster_and_an_expired_certificate(parties: Parties) -> None:
    folder = parties.coordinator
    pki.make_server(["localhost"], folder.authority, folder.path / "authority.key", *folder.server, days=0)
    assert any("EXPIRED" in one.text for one in checkup.check(folder.path) if one.what == "server")
    zurich = parties.sites["zurich"]
    data = bytearray((zurich.path / "roster.json").read_bytes())
    data[len(data) // 2] ^= 1
    (zurich.path / "roster.json").write_bytes(bytes(data))
    assert any(one.level == "error" and one.what == "roster" for one in checkup.check(zurich.path))


def test_a_sender_in_two_places_shows_until_it_is_cleared(parties: Parties) -> None:
    zurich, now = parties.sites["zurich"], canonical.now()
    seen = zurich.seen()
    seen.take("coordinator", "run-1", "0" * 16, 0, now, now)
    seen.take("coordinator", "run-1", "1" * 16, 0, now + timedelta(seconds=1), now)
    with pytest.raises(IdentityRefused):
        seen.take("coordinator", "run-1", "0" * 16, 1, now + timedelta(seconds=2), now)
    seen.close()
    assert any("two places" in one.text for one in checkup.check(zurich.path))
    assert checkup.clear(zurich.path, "coordinator") == 1
    assert {one.level for one in checkup.check(zurich.path)} == {"ok"}


def test_folders_of_the_wrong_kind_are_named(parties: Parties, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither"):
        kit.open_folder(tmp_path)
    with pytest.raises(ConfigError, match="needs the coordinator's folder"):
        enrolling.enrol(parties.sites["zurich"].path, [])
    with pytest.raises(ConfigError, match="is the coordinator's folder"):
        enrolling.join(parties.coordinator.path, parties.roster_file)


def test_what_was_done_is_in_the_logs(parties: Parties) -> None:
    from wardround.deploy import audit

    enrolling.enrol(parties.coordinator.path, [enrolling.rotate_party(parties.sites["zurich"].path)])
    enrolling.revoke(parties.coordinator.path, "budapest")
    entries = list(parties.coordinator.audit().entries())
    assert [entry["party"] for entry in entries if entry["kind"] == "enrolled"] == [
        "coordinator",
        *SITES,
        SUBMITTER,
        "zurich",
    ]
    assert [entry["party"] for entry in entries if entry["kind"] == "revoked"] == ["budapest"]
    last = [entry for entry in entries if entry["kind"] == "roster"][-1]
    assert last["digest"] == hashlib.sha256(parties.roster_file.read_bytes()).hexdigest()
    for folder in (parties.coordinator, *parties.sites.values()):
        assert audit.verify(folder.audit_path) == []


def test_files_of_another_kind_or_size_are_refused(parties: Parties) -> None:
    roster = parties.roster_file.read_bytes()
    request = (parties.sites["zurich"].path / "request.json").read_bytes()
    for parse in (Enrolment.from_bytes, SigningRequest.from_bytes, Roster.from_bytes):
        for data in (
            b"",
            b"\x80\x04N.",
            b"[]",
            b"{}",
            roster[:-2],
            b" " * (5 * 2**20),
            json.dumps(json.loads(roster)).encode(),
        ):
            with pytest.raises(WardroundError):
                parse(data)
    for parse, data in (
        (Enrolment.from_bytes, roster),
        (SigningRequest.from_bytes, roster),
        (Roster.from_bytes, request),
    ):
        with pytest.raises(MessageError, match="it is another file"):
            parse(data)


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "../../etc"}, {"name": "A"}, {"role": "spy"}, {"role": "coordinator"}, {"node": "ssh-ed25519 AAAA"},
        {"node": "ecdsa-sha2-nistp384 AAAA\nmore"}, {"public": "zz" * 32}, {"public": "ab"}, {"ends": "never"}, {"begins": 1},
        {"rotations": [{}]}, {"more": 1},
    ],
)  # fmt: skip
def test_a_roster_with_an_entry_of_another_form_is_refused_though_it_is_signed(
    parties: Parties, changed: dict[str, Any]
) -> None:
    entries = json.loads(parties.roster_file.read_bytes())["entries"]
    altered = [{**entry, **changed} if entry["name"] == "zurich" else entry for entry in entries]
    with pytest.raises(MessageError):
        Roster.from_bytes(signed_roster(parties, entries=altered))


@pytest.mark.parametrize(
    "changed",
    [
        {"project": "../x"}, {"addresses": []}, {"addresses": ["a b"]}, {"addresses": [1]}, {"port": 0}, {"port": True},
        {"serial": -1}, {"made": "now"}, {"revoked": {"SHA256:x": "../x"}}, {"revoked": {"SHA256:x": 1}}, {"revoked": []},
        {"entries": []}, {"entries": {}}, {"more": 1},
    ],
)  # fmt: skip
def test_a_roster_of_another_form_is_refused_though_it_is_signed(parties: Parties, changed: dict[str, Any]) -> None:
    assert Roster.from_bytes(signed_roster(parties)) == parties.coordinator.roster()
    with pytest.raises(MessageError):
        Roster.from_bytes(signed_roster(parties, **changed))


def test_a_roster_names_each_party_once(parties: Parties) -> None:
    entries = json.loads(parties.roster_file.read_bytes())["entries"]
    twin = {**entries[-1], "public": Identity.generate("x").public.hex()}
    with pytest.raises(MessageError, match="names a party twice"):
        Roster.from_bytes(signed_roster(parties, entries=[*entries, twin]))


def signed_roster(parties: Parties, **changed: Any) -> bytes:
    """The roster with other members, as a hostile coordinator signs it."""
    tree = {**json.loads(parties.roster_file.read_bytes()), **changed}
    unsigned = {name: value for name, value in tree.items() if name not in ("signature", "format", "kind")}
    signature = parties.coordinator.identity().sign(b"wardround/roster/1\x00" + canonical.encode(unsigned))
    return canonical.encode({**tree, "signature": signature.hex()}) + b"\n"


def test_a_request_of_another_form_is_refused_though_it_is_signed(parties: Parties, tmp_path: Path) -> None:
    identity = Identity.generate("zurich")
    node = pki.make_node_key(tmp_path / "node.key")
    for name, role in (("../../x", "site"), ("zurich", "coordinator"), (SUBMITTER, "submitter")):
        request = SigningRequest(
            project="heart", name=name, role=role, public=identity.public.hex(), node=node,
            made=canonical.time_text(canonical.now()),
        )  # fmt: skip
        proof = pki.sign_with_node_key(tmp_path / "node.key", request.core())
        request = replace(request, node_proof=proof, signature=identity.sign(request.core()).hex())
        with pytest.raises(MessageError):
            SigningRequest.from_bytes(request.to_bytes())


def test_changes_name_each_difference(parties: Parties) -> None:
    old = parties.coordinator.roster()
    key = old.coordinator.public
    assert {one.what for one in changes(None, old, coordinator=key)} == {"new"}
    assert changes(old, old, coordinator=key) == []
    others = tuple(
        replace(e, role="submitter") if e.name == "zurich" else e for e in old.entries if e.name != "budapest"
    )
    new = replace(old, serial=old.serial + 1, entries=others, revoked={"SHA256:x": "budapest"})
    found = {(one.name, one.what): one.proved for one in changes(old, new, coordinator=key)}
    assert found == {("budapest", "gone"): True, ("zurich", "role"): False, ("budapest", "revoked"): True}


def _dies(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt
