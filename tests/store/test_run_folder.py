import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround import config
from wardround.config import Job
from wardround.errors import RunError, StorageError, WardroundError
from wardround.store.journal import Journal
from wardround.store.run import Run
from wardround.types import Arrays, ModelState, Server

JOB = Job(name="test", seed=5)
FACTS = {"threads": 2, "versions": {"torch": "1"}, "roster": ("a", "b")}


def make_server(value: float) -> Server:
    return Server(
        model=ModelState(
            params={"w": torch.full((2, 3), value), "b": torch.tensor(value, dtype=torch.float64)},
            buffers={"norm.mean": torch.full((3,), -value)},
        ),
        rule={"c/w": torch.full((2, 3), 10 * value)},
        optimizer={"m": torch.full((1,), 20 * value, dtype=torch.float16)},
    )


def make_states(values: Sequence[float]) -> Arrays:
    return {"c": torch.tensor(values, dtype=torch.float32)[:, None].expand(-1, 2), "k": torch.tensor(values).long()}


def equal(left: Arrays, right: Arrays) -> bool:
    return list(left) == list(right) and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


def holds(run: Run, value: float, sites: dict[str, float], completed: int | None = None) -> bool:
    """Whether a commit restores bit for bit to make_server(value) and these sites' states."""
    server, names, states = run.restore(completed)
    expected = make_server(value)
    return (
        equal(server.model.params, expected.model.params)
        and equal(server.model.buffers, expected.model.buffers)
        and equal(server.rule, expected.rule)
        and equal(server.optimizer, expected.optimizer)
        and names == tuple(sorted(sites))
        and equal(states, make_states([sites[name] for name in names]) if sites else {})
    )


def files(run: Run) -> list[str]:
    return sorted(name.removesuffix(".safetensors") for name in os.listdir(run.path / "checkpoints"))


def add(run: Run, completed: int, sites: Sequence[str], keep: Sequence[int] = ()) -> None:
    """Commit `completed` with the server's value and the sites' states equal to it."""
    states = make_states([completed] * len(sites)) if sites else {}
    run.commit(completed, [{"loss": completed / 4}], make_server(completed), tuple(sites), states, keep=keep)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run.create(tmp_path / "run", JOB, FACTS) as made:
        yield made


# ---------------------------------------------------------------------------------------------------- life


def test_a_new_run_says_what_it_is(run: Run) -> None:
    head = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
    assert head["format"] == 2
    assert head["id"] == run.id
    assert head["created"] == run.created
    assert run.created.endswith("+00:00")
    assert head["job"] == JOB.model_dump(mode="json")
    assert config.load(run.path / "job.yaml") == JOB
    assert (run.status, run.cause, run.completed, run.records) == ("running", "", None, [])
    assert run.facts == {"threads": 2, "versions": {"torch": "1"}, "roster": ["a", "b"]}
    with pytest.raises(RunError, match="no commit yet"):
        run.restore()


def test_two_runs_have_two_identities(tmp_path: Path) -> None:
    with Run.create(tmp_path / "a", JOB, {}) as one, Run.create(tmp_path / "b", JOB, {}) as two:
        assert one.id != two.id


def test_a_folder_with_a_run_is_refused(run: Run) -> None:
    run.close()
    with pytest.raises(RunError, match=r"wardround resume .*run.*another --out"):
        Run.create(run.path, JOB, {})


@pytest.mark.parametrize("name", ["notes.txt", "job.yaml", "journal.jsonl"])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("seed: 1\n")
    with pytest.raises(RunError, match=f"not empty and holds no run .{name}"):
        Run.create(tmp_path, JOB, {})
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "seed: 1\n"


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StorageError, match="file"):
            Run.create(path, JOB, {})


def test_facts_and_jobs_must_be_json(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="facts"):
        Run.create(tmp_path / "a", JOB, {"x": float("nan")})
    with pytest.raises(RunError, match="job"):
        Run.create(tmp_path / "a", Job.model_validate({"model": {"options": {"x": object()}}}), {})
    assert not (tmp_path / "a").exists()


def test_there_is_one_writer_and_any_number_of_readers(run: Run) -> None:
    add(run, 0, [])
    with pytest.raises(RunError, match="being written by another process"):
        Run.open(run.path)
    with Run.open(run.path, writer=False) as reader:
        assert holds(reader, 0, {})
        for act in (lambda: add(reader, 1, []), lambda: reader.finish("x"), lambda: reader.write_json("a", 1)):
            with pytest.raises(RunError, match="open for reading"):
                act()
    run.close()
    run.close()
    with pytest.raises(RunError, match="was closed"):
        add(run, 1, [])
    with Run.open(run.path) as writer:
        add(writer, 1, [])


def test_another_process_cannot_write_either(run: Run) -> None:
    code = "import sys; from wardround.store.run import Run; Run.open(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=False)
    assert "RunError" in done.stderr


def test_the_status_is_kept(run: Run) -> None:
    run.finish("failed", "quorum")
    run.close()
    with Run.open(run.path, writer=False) as again:
        assert (again.status, again.cause, again.id) == ("failed", "quorum", run.id)


# ---------------------------------------------------------------------------------------------------- the same job


def test_the_same_job_and_facts_pass_whatever_the_versions(run: Run) -> None:
    run.check(JOB, FACTS | {"versions": "others"})


def test_differences_are_listed(run: Run) -> None:
    with pytest.raises(RunError) as caught:
        run.check(Job(name="test", seed=6), {"threads": 4, "roster": ["a", "b"], "device": "cuda"})
    assert str(caught.value).splitlines()[1:] == [
        "  seed: 5 -> 6",
        "  device: (absent) -> 'cuda'",
        "  threads: 2 -> 4",
    ]


def test_an_edited_job_is_refused_with_its_differences(run: Run) -> None:
    run.close()
    file = run.path / "job.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text("# a remark changes nothing\n" + text, encoding="utf-8")
    Run.open(run.path).close()
    file.write_text(text.replace("seed: 5", "seed: 55"), encoding="utf-8")
    for writer in (True, False):
        with pytest.raises(RunError, match=r"job\.yaml was edited(?s:.*)seed: 5 -> 55"):
            Run.open(run.path, writer=writer)
    file.write_text("seed: [", encoding="utf-8")
    with pytest.raises(RunError, match=r"job\.yaml"):
        Run.open(run.path)
    file.unlink()
    with pytest.raises(RunError, match=r"job\.yaml"):
        Run.open(run.path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 3}, "format 3, expected 2"),
        ({"id": None}, "id = None"),
        ({"facts": []}, "facts"),
        ({"job": {"seed": 6}}, "its job was edited"),
    ],
)
def test_a_damaged_head_is_refused(run: Run, change: dict[str, object], reason: str) -> None:
    run.close()
    file = run.path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(RunError, match=reason):
        Run.open(run.path)


def test_what_is_no_run_is_refused(run: Run, tmp_path: Path) -> None:
    run.close()
    for text in ("[]", "{", "\0"):
        (run.path / "run.json").write_text(text)
        with pytest.raises(RunError, match="damaged"):
            Run.open(run.path)
    (run.path / "run.json").unlink()
    for path in (run.path, tmp_path / "absent", run.path / "job.yaml"):
        with pytest.raises(RunError, match="holds no run"):
            Run.open(path)
    assert not (tmp_path / "absent").exists()


# ---------------------------------------------------------------------------------------------------- commits


def test_a_commit_restores_bit_for_bit_in_another_process_life(run: Run) -> None:
    add(run, 0, [])
    add(run, 1, ["b", "a"])
    add(run, 2, ["b"])
    assert holds(run, 2, {"a": 1, "b": 2})
    run.close()
    with Run.open(run.path) as again:
        assert again.completed == 2
        assert again.records == [{"loss": 0.0}, {"loss": 0.25}, {"loss": 0.5}]
        assert holds(again, 2, {"a": 1, "b": 2})
        assert again.verify() == 3


def test_what_no_kept_commit_needs_is_deleted(run: Run) -> None:
    add(run, 0, [])
    assert files(run) == ["server-00000"]
    add(run, 1, ["a", "b"])
    assert files(run) == ["server-00001", "states-00001"]
    add(run, 2, ["a"], keep=[1, 2, 77])
    assert files(run) == ["server-00001", "server-00002", "states-00001", "states-00002"]
    # b's latest state moves from 1 to 3, but the kept commit 1 still needs it; 2 holds a's
    add(run, 3, ["b"], keep=[1])
    assert files(run) == ["server-00001", "server-00003", "states-00001", "states-00002", "states-00003"]
    assert holds(run, 1, {"a": 1, "b": 1}, completed=1)
    assert holds(run, 3, {"a": 2, "b": 3})
    with pytest.raises(RunError, match=r"no checkpoint of 2 .* only of: 1, 3"):
        run.restore(2)
    add(run, 4, [], keep=[2])
    assert files(run) == ["server-00004", "states-00002", "states-00003"]
    assert holds(run, 4, {"a": 2, "b": 3})
    add(run, 5, ["a", "b", "c"])
    assert files(run) == ["server-00005", "states-00005"]


def test_numbers_of_commits_increase(run: Run) -> None:
    with pytest.raises(RunError, match="completed = -1"):
        add(run, -1, [])
    add(run, 3, [])
    for completed in (3, 2):
        with pytest.raises(RunError, match=f"completed = {completed}: expected more than 3"):
            add(run, completed, [])


def test_what_cannot_be_committed_changes_nothing(run: Run) -> None:
    add(run, 0, ["a"])
    with pytest.raises(RunError, match="not JSON"):
        run.commit(1, [{"loss": float("nan")}], make_server(1), (), {})
    with pytest.raises(WardroundError, match="leading axis of 2"):
        run.commit(1, [{}], make_server(1), ("a", "b"), make_states([1]))
    with pytest.raises(WardroundError, match="twice"):
        run.commit(1, [{}], make_server(1), ("a", "a"), make_states([1, 1]))
    assert holds(run, 0, {"a": 0})
    add(run, 1, [])
    assert holds(run, 1, {"a": 0})


def test_a_server_may_be_empty(run: Run) -> None:
    run.commit(0, [{}], Server(model=ModelState(params={}, buffers={})), ("a",), {})
    assert run.restore() == (Server(model=ModelState(params={}, buffers={})), (), {})


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sets(st.sampled_from("abcd")), st.booleans(), st.booleans()), min_size=1, max_size=7))
def test_every_kept_commit_restores_and_nothing_more_is_kept(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[tuple[set[str], bool, bool]]
) -> None:
    run = Run.create(tmp_path_factory.mktemp("run"), JOB, {})
    latest: dict[str, float] = {}
    history: dict[int, dict[str, float]] = {}
    kept: set[int] = set()
    for completed, (sites, keep, reopen) in enumerate(rounds):
        add(run, completed, sorted(sites), keep=sorted(kept))
        latest = latest | dict.fromkeys(sites, completed)
        history[completed] = latest
        retained = kept | {completed}
        kept = retained if keep else kept
        needed = {f"server-{number:05d}" for number in retained}
        needed |= {f"states-{int(value):05d}" for number in retained for value in history[number].values()}
        assert set(files(run)) == needed
        if reopen:
            run.close()
            run = Run.open(run.path)
        assert all(holds(run, number, history[number], completed=number) for number in retained)
    run.close()


def test_a_commit_is_cheap_in_the_number_of_sites(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    sites = tuple(f"site-{number:06d}" for number in range(100_000))
    run.commit(0, [{}], make_server(0), sites, {"c": torch.zeros(len(sites), 1)})
    start = time.perf_counter()
    for completed in range(1, 21):
        chosen = sites[completed::5000]
        run.commit(completed, [{}], make_server(1), chosen, {"c": torch.ones(len(chosen), 1)})
    # 20 sites a commit: about a millisecond. Going through all 100,000 names would take tens of milliseconds.
    assert (time.perf_counter() - start) / 20 < 0.02


# ---------------------------------------------------------------------------------------------------- crashes


class Killed(BaseException):
    """The process ends here: no later call has any effect."""


CALLS = ("open", "write", "fsync", "replace", "unlink", "ftruncate", "mkdir")


@contextmanager
def killed_before_call(number: int) -> Iterator[list[str]]:
    """Let `number` file system calls happen; the next one, half done where it is a write, and all later ones do not."""
    made: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, _dying(name, getattr(os, name), number, made))
        yield made


def _dying(name, real, number, made):  # type: ignore[no-untyped-def]
    def call(*arguments, **options):  # type: ignore[no-untyped-def]
        made.append(name)
        if len(made) > number:
            if name == "write" and len(made) == number + 1:
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise Killed
        return real(*arguments, **options)

    return call


def prepare(path: Path) -> Run:
    run = Run.create(path, JOB, {})
    add(run, 0, ["a", "b", "c"])
    add(run, 1, ["a", "b"])
    add(run, 2, ["a"], keep=[1])
    return run


BEFORE = {"a": 2.0, "b": 1.0, "c": 0.0}
AFTER = {"a": 2.0, "b": 3.0, "c": 3.0}


def crash_points(tmp_path: Path) -> int:
    run = prepare(tmp_path / "count")
    with killed_before_call(10**6) as made:
        add(run, 3, ["b", "c"], keep=[2])
    run.close()
    assert {"write", "fsync", "replace", "unlink"} <= set(made)
    return len(made)


def test_a_crash_at_any_point_of_a_commit_loses_nothing(tmp_path: Path) -> None:
    committed = []
    for number in range(crash_points(tmp_path)):
        run = prepare(tmp_path / str(number))
        with killed_before_call(number), pytest.raises(Killed):
            add(run, 3, ["b", "c"], keep=[2])
        run.close()
        with Run.open(run.path, writer=False) as reader:
            committed.append(reader.completed == 3)
            assert holds(reader, 3, AFTER) if committed[-1] else holds(reader, 2, BEFORE)
        with Run.open(run.path) as again:
            again.verify()
            if again.completed == 2:
                assert holds(again, 1, {"a": 1, "b": 1, "c": 0}, completed=1)
                assert files(again) == ["server-00001", "server-00002", "states-00000", "states-00001", "states-00002"]
                add(again, 3, ["b", "c"], keep=[2])
            assert holds(again, 3, AFTER)
            assert holds(again, 2, BEFORE, completed=2)
            assert files(again) == [
                "server-00002",
                "server-00003",
                "states-00000",
                "states-00001",
                "states-00002",
                "states-00003",
            ]
            add(again, 4, ["a"])
            assert holds(again, 4, AFTER | {"a": 4})
            assert files(again) == ["server-00004", "states-00003", "states-00004"]
            assert not [name for name in os.listdir(again.path) if name.endswith(".tmp")]
    # the journal's line is the one point from which on the commit stands
    assert committed == sorted(committed)
    assert set(committed) == {False, True}


def test_a_crash_at_any_point_of_a_repair_loses_nothing(tmp_path: Path) -> None:
    for number in range(100):
        run = prepare(tmp_path / str(number))
        run.close()
        for name in (
            ".run.json.0123abcd.tmp",
            "checkpoints/server-00003.safetensors",
            "checkpoints/server-00000.safetensors",
        ):
            (run.path / name).write_bytes(b"x")
        with open(run.path / "journal.jsonl", "ab") as file:
            file.write(b'{"completed":3,')
        with killed_before_call(number) as made, suppress(Killed):
            Run.open(run.path).close()
        with Run.open(run.path) as again:
            assert holds(again, 2, BEFORE)
            assert len(files(again)) == again.verify() == 5
            add(again, 3, [])
        if len(made) <= number:
            return
    pytest.fail("a repair takes more than 100 calls")


def test_a_crash_at_any_point_of_a_creation_leaves_a_run_or_a_folder_to_create_it_in(tmp_path: Path) -> None:
    outcomes = set()
    for number in range(100):
        path = tmp_path / str(number) / "run"
        with killed_before_call(number) as made, suppress(Killed):
            Run.create(path, JOB, FACTS).close()
        outcomes.add((path / "run.json").exists())
        with Run.open(path) if (path / "run.json").exists() else Run.create(path, JOB, FACTS) as run:
            run.check(JOB, FACTS)
            add(run, 0, ["a"])
        if len(made) <= number:
            assert outcomes == {False, True}
            return
    pytest.fail("a creation takes more than 100 calls")


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_after_a_full_disk_the_commit_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    for number in range(20):
        run = prepare(tmp_path / str(number))
        real, calls = getattr(os, call), [0]

        def full(*arguments, real=real, calls=calls, number=number):  # type: ignore[no-untyped-def]
            calls[0] += 1
            if calls[0] == number + 1:
                raise OSError(28, "No space left on device")
            return real(*arguments)

        failed = False
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            try:
                add(run, 3, ["b", "c"], keep=[2])
            except StorageError:
                failed = True
        if failed:
            assert holds(run, 2, BEFORE)
            add(run, 3, ["b", "c"], keep=[2])
        assert holds(run, 3, AFTER)
        run.close()
        with Run.open(run.path, writer=False) as again:
            assert holds(again, 3, AFTER)
        if calls[0] <= number:
            return
    pytest.fail("a commit takes more than 20 calls")


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_file_size_limit_is_a_storage_error_and_the_earlier_commit_stands(tmp_path: Path) -> None:
    code = """
import resource, sys, torch
from wardround.config import Job
from wardround.errors import StorageError
from wardround.store.journal import Journal
from wardround.store.run import Run
from wardround.types import ModelState, Server
def server(value, size=10):
    return Server(model=ModelState(params={"w": torch.full((size,), value)}, buffers={}))
run = Run.create(sys.argv[1], Job(), {})
run.commit(0, [{}], server(1.0), (), {})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    run.commit(1, [{}], server(2.0, 10_000), (), {})
except StorageError as error:
    print(error)
print(run.restore()[0].model.params["w"].tolist() == [1.0] * 10)
run.commit(1, [{}], server(3.0), (), {})
"""
    path = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    said, intact = done.stdout.splitlines()
    assert "server-00001.safetensors could not be written" in said
    assert "ulimit" in said
    assert intact == "True"
    with Run.open(path) as run:
        assert run.restore()[0].model.params["w"].tolist() == [3.0] * 10
        assert files(run) == ["server-00001"]


# ---------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("name", ["server-00002", "states-00002", "states-00001", "states-00000"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str, damage: str) -> None:
    with prepare(tmp_path / "run") as run:
        file = run.path / "checkpoints" / f"{name}.safetensors"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        if damage == "remove":
            file.unlink()
        else:
            file.write_bytes(bytes(data) if damage == "flip" else bytes(data[:-1]))
        with pytest.raises(RunError, match=name):
            run.restore()
        with pytest.raises(RunError, match=name):
            run.verify()
    with Run.open(tmp_path / "run") as again, pytest.raises(RunError, match=name):
        again.restore()


def lines(path: Path) -> list[bytes]:
    return (path / "journal.jsonl").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_altered_line_is_found_the_last_one_too(tmp_path: Path, number: int) -> None:
    path = tmp_path / "run"
    prepare(path).close()
    found = lines(path)
    for place in range(len(found[number]) - 1):
        altered = bytearray(found[number])
        altered[place] ^= 1
        if altered[place] == ord("\n"):
            continue
        (path / "journal.jsonl").write_bytes(b"".join([*found[:number], bytes(altered), *found[number + 1 :]]))
        with pytest.raises(RunError, match=f"line {number + 1} "):
            Journal(path / "journal.jsonl")
    with pytest.raises(RunError, match=f"line {number + 1} "):
        Run.open(path)


def test_a_removed_added_or_moved_line_is_found(tmp_path: Path) -> None:
    path = tmp_path / "run"
    prepare(path).close()
    one, two, three = lines(path)
    for content in ([two, three], [one, three], [one, one, two, three], [two, one, three], [b"\n", one], []):
        (path / "journal.jsonl").write_bytes(b"".join(content))
        if content:
            with pytest.raises(RunError, match="line "):
                Run.open(path)
    (path / "journal.jsonl").unlink()
    with pytest.raises(RunError, match=r"journal\.jsonl is absent"):
        Run.open(path)


def test_a_line_without_its_end_is_an_interrupted_write(tmp_path: Path) -> None:
    path = tmp_path / "run"
    prepare(path).close()
    whole = (path / "journal.jsonl").read_bytes()
    for unfinished in (b"{", whole.splitlines()[0]):
        (path / "journal.jsonl").write_bytes(whole + unfinished)
        with Run.open(path, writer=False) as reader:
            assert holds(reader, 2, BEFORE)
        assert (path / "journal.jsonl").read_bytes() == whole + unfinished
        with Run.open(path) as writer:
            assert holds(writer, 2, BEFORE)
        assert (path / "journal.jsonl").read_bytes() == whole


def test_a_journal_changed_under_its_writer_is_not_extended(tmp_path: Path) -> None:
    with prepare(tmp_path / "run") as run:
        with open(run.path / "journal.jsonl", "ab") as file:
            file.write(b"{}\n")
        with pytest.raises(RunError, match="somebody else changed it"):
            add(run, 3, [])


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "run"
    prepare(path).close()
    for name in ("notes.txt", "checkpoints/notes.txt"):
        (path / name).write_text("x")
    with Run.open(path) as run:
        add(run, 3, [])
    assert (path / "notes.txt").exists()
    assert (path / "checkpoints" / "notes.txt").exists()


def test_interrupted_writes_are_swept_from_every_folder_but_those_of_other_runs(tmp_path: Path) -> None:
    path, left = tmp_path / "run", ".site.safetensors.0123abcd.tmp"
    prepare(path).close()
    prepare(path / "baselines" / "local").close()
    inside = [path / "overlays" / left, path / "finetuned" / "overlays" / left, path / left]
    another = path / "baselines" / "local" / left
    for file in (*inside, another):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    Run.open(path, writer=False).close()
    assert all(file.exists() for file in inside)
    Run.open(path).close()
    assert [file for file in inside if file.exists()] == []
    assert another.exists()


# ---------------------------------------------------------------------------------------------------- other files


def test_other_files_come_back(run: Run) -> None:
    run.write_json("figures/auroc.json", {"é": [1, None]})
    assert run.read_json("figures/auroc.json") == {"é": [1, None]}
    run.write_tensors("model/shared.safetensors", {"w": torch.ones(2)}, {"name": "Süd"})
    arrays, metadata = run.read_tensors("model/shared.safetensors")
    assert arrays["w"].tolist() == [1.0, 1.0]
    assert metadata == {"name": "Süd"}


def test_other_files_absent_or_damaged_are_named(run: Run) -> None:
    for read in (run.read_json, run.read_tensors):
        with pytest.raises(RunError, match=r"absent\.x is absent"):
            read("absent.x")
        (run.path / "bad.x").write_text("{")
        with pytest.raises(RunError, match=r"bad\.x"):
            read("bad.x")
    with pytest.raises(RunError, match=r"a\.json cannot be written as JSON"):
        run.write_json("a.json", float("nan"))
    assert not (run.path / "a.json").exists()


@pytest.mark.parametrize("name", ["../x", "/x", "", ".", "a/../../x", "C:x", "a\\x"])
def test_other_files_stay_inside(run: Run, name: str) -> None:
    for act in (lambda: run.write_json(name, 1), lambda: run.read_json(name)):
        with pytest.raises(RunError, match="not a name inside"):
            act()


@pytest.mark.parametrize("name", ["run.json", "job.yaml", "journal.jsonl", ".lock", "checkpoints/x", "./RUN.json"])
def test_the_runs_own_files_are_not_other_files(run: Run, name: str) -> None:
    with pytest.raises(RunError, match="own files"):
        run.write_json(name, 1)
