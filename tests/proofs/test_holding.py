"""Who keeps an opening loses none and spends none twice: killed at every system call, killed at any time, many processes at once."""

import itertools
import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nexus_edge.data import demo_digits, demo_model
from nexus_edge.errors import BadInput, Cancelled, FileError, OpeningError, OpeningSpent, ProofRejected, RejectReason
from nexus_edge.proofs import HeldOpening, Model, Opening, OpeningFile, ProvingKey, commit_model, commit_tensor, prove, verify
from nexus_edge.types import TensorCommitment
from tests.proofs.test_opening import BUDGET, PER_PROOF, opening
from tests.support import models
from tests.support.holders import some_rows

ROOT = Path(__file__).parent.parent.parent
COMMITMENT = opening().commitment


@pytest.fixture
def file(tmp_path: Path) -> OpeningFile:
    return HeldOpening(opening()).save(tmp_path / "op.bin")


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.holders", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> list[list[Any]]:
    """What left the process before it ended; a line that was cut off was not read by anyone."""
    output, _ = process.communicate(timeout=120)
    return [json.loads(line) for line in output.splitlines() if line.endswith("]")]


def shown(events: list[list[Any]], path: Path) -> set[int]:
    return {row for event in events if event[:2] == ["rows", str(path)] for row in event[2]}


def opened(one: Opening) -> set[int]:
    return {row for row in range(8 * len(one.account.bitmap)) if one.account.bitmap[row >> 3] >> (row & 7) & 1}


# Files


def test_the_file_is_for_its_owner_alone(file: OpeningFile, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        file.spend(COMMITMENT, [1])
        other = file.share(1, tmp_path / "other")
        saved = HeldOpening(opening()).save(tmp_path / "saved")
    finally:
        os.umask(before)
    for each in (file, other, saved):
        assert stat.S_IMODE(each.path.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"op.bin", "other", "saved"}


def test_the_disk_has_it_before_the_caller_goes_on(file: OpeningFile, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def instead(*arguments: Any, **options: Any) -> Any:
            target = Path(f"/proc/self/fd/{arguments[0]}").readlink() if name == "fsync" else None
            calls.append("fsync folder" if target == file.path.parent else name)
            return real(*arguments, **options)

        return instead

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name))
    file.spend(COMMITMENT, [1])
    assert calls == ["fsync", "replace", "fsync folder"]
    assert file.read().account.opened == 1


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_disk_that_fails(file: OpeningFile, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(FileError, match="No space"):
        file.spend(COMMITMENT, [1])
    held = HeldOpening(opening())
    with pytest.raises(FileError, match="No space"):
        held.save(file.path.with_name("new"))
    assert held.read().account.allowance == BUDGET
    monkeypatch.undo()
    assert file.read().account.opened == 0
    assert [path.name for path in file.path.parent.iterdir()] == ["op.bin"]


def break_behind_the_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders cannot be synced: the file has its new content and its name by then."""
    real = os.fsync

    def fail(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(5, "Input/output error")
        real(handle)

    monkeypatch.setattr(os, "fsync", fail)


def test_a_save_that_fails_behind_the_rename_leaves_one_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_behind_the_rename(monkeypatch)
    held = HeldOpening(opening())
    with pytest.raises(FileError, match="Input/output"):
        held.save(tmp_path / "op.bin")
    assert OpeningFile(tmp_path / "op.bin").read().account.allowance == BUDGET
    with pytest.raises(OpeningError, match="saved to a file"):
        held.spend(COMMITMENT, [1])


def test_an_opening_has_one_holder(tmp_path: Path) -> None:
    held = HeldOpening(opening())
    file = held.save(tmp_path / "op.bin")
    for use in (held.read, lambda: held.spend(COMMITMENT, [1]), lambda: held.share(1), lambda: held.save(tmp_path / "again")):
        with pytest.raises(OpeningError, match="saved to a file"):
            use()
    with pytest.raises(FileError, match="exists already"):
        HeldOpening(opening()).save(tmp_path / "op.bin")
    with pytest.raises(FileError, match="exists already"):
        file.share(1, tmp_path / "op.bin")
    assert file.read().account.allowance == BUDGET


def in_a_fork(use: Callable[[], object]) -> str:
    """What it raises there, or nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            use()
        except OpeningError as raised:
            os.write(writing, str(raised).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        return answer.read()


def test_a_fork_has_no_second_account(tmp_path: Path) -> None:
    held = HeldOpening(opening())
    for use in (lambda: held.spend(COMMITMENT, [1]), lambda: held.share(1), lambda: held.save(tmp_path / "op.bin")):
        assert "this is a fork" in in_a_fork(use)
    assert in_a_fork(held.read) == ""
    assert list(tmp_path.iterdir()) == []
    file = held.save(tmp_path / "op.bin")
    assert in_a_fork(lambda: file.spend(COMMITMENT, [1])) == ""
    assert file.read().account.opened == 1


def test_a_file_beside_the_proof_is_replaced(file: OpeningFile) -> None:
    HeldOpening(opening(rows=(7,))).save(file.path, replace=True)
    assert opened(file.read()) == {7}


def test_a_link_is_followed(file: OpeningFile, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file.path)
    OpeningFile(tmp_path / "link").spend(COMMITMENT, [3])
    assert (tmp_path / "link").is_symlink()
    assert opened(file.read()) == {3}


def test_the_opening_of_another_commitment_pays_nothing(file: OpeningFile) -> None:
    for holder in (file, HeldOpening(opening())):
        with pytest.raises(OpeningError, match="it is of commitment"):
            holder.spend(TensorCommitment(bytes(31) + b"\1"), [3])
        assert holder.read().account.opened == 0


@pytest.mark.parametrize("content", [None, b"", b"NXEOPENG", bytes(2000)])
def test_no_opening(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "op.bin"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(OpeningError):
        OpeningFile(path).read()
    assert OpeningFile(path).exists() is bool(content)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_an_opening_that_others_may_read_or_change_is_refused(file: OpeningFile, mode: int) -> None:
    before = file.read()
    file.path.chmod(mode)
    with pytest.raises(FileError, match=f"has mode {mode:04o}.*chmod 600"):
        file.read()
    with pytest.raises(FileError, match="not private"):
        file.spend(COMMITMENT, [3])
    file.path.chmod(0o600)
    assert file.read() == before


def test_shares_sum_to_the_budget(file: OpeningFile, tmp_path: Path) -> None:
    file.spend(COMMITMENT, range(100))
    first = file.share(2, tmp_path / "first")
    second = first.share(1, tmp_path / "second")
    verifier = file.share(0, tmp_path / "verifier")
    allowances = [each.read().account.allowance for each in (file, first, second, verifier)]
    assert allowances == [BUDGET - 2 * PER_PROOF, PER_PROOF, PER_PROOF, 0]
    with pytest.raises(OpeningSpent):
        second.share(2, tmp_path / "third")
    with pytest.raises(OpeningSpent):
        verifier.spend(COMMITMENT, [0])
    second.spend(COMMITMENT, range(PER_PROOF))  # other rows than the giver's, or the same: its own account
    assert second.read().account.left == 0


def test_openings_in_memory_are_shared_too() -> None:
    held = HeldOpening(opening())
    given = held.share(2)
    assert (held.read().account.allowance, given.read().account.allowance) == (BUDGET - 2 * PER_PROOF, 2 * PER_PROOF)


# Killed


CALLS_AT_MOST = 60


class Server:
    """Runs commands of `tests.support.holders`, each in a process of its own."""

    def __init__(self) -> None:
        self.process = start("serve")

    def begin(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(list(map(str, words))) + "\n")
        self.process.stdin.flush()

    def hear(self, until: str) -> list[list[Any]]:
        """What is said, the last of it being `until`."""
        assert self.process.stdout is not None
        events = [json.loads(self.process.stdout.readline())]
        while events[-1][0] != until:
            events.append(json.loads(self.process.stdout.readline()))
        return events

    def killed_everywhere(self, *words: object, prepare: Callable[[], object]) -> Iterator[list[list[Any]]]:
        """Run a command again and again, killed one call later each time, until it lives; what left it, for each time."""
        for call in range(CALLS_AT_MOST):
            prepare()
            self.begin(*words, call)
            events = self.hear("ended")
            yield events
            if events[-1] == ["ended", 0]:
                assert call > 10, "a change takes more calls than that"
                return
            assert events[-1] == ["ended", -signal.SIGKILL]
        raise AssertionError("it never ended by itself")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.process.communicate(timeout=60)
    assert server.process.returncode == 0


def test_killed_at_every_call_of_a_proof(server: Server, file: OpeningFile) -> None:
    fresh = file.file.read()
    rows = set(some_rows(random.Random(3)))
    counted = []
    for events in server.killed_everywhere("spend", file.path, 3, prepare=lambda: file.path.write_bytes(fresh)):
        after = opened(file.read())
        assert shown(events, file.path) <= after
        assert after in (set(), rows)
        counted.append(bool(after))
        file.spend(COMMITMENT, [1])  # nothing holds the lock
    assert counted == sorted(counted)
    assert set(counted) == {False, True}


def test_killed_at_every_call_of_a_share(server: Server, file: OpeningFile, tmp_path: Path) -> None:
    fresh = file.file.read()
    other = OpeningFile(tmp_path / "other")

    def prepare() -> None:
        file.path.write_bytes(fresh)
        other.path.unlink(missing_ok=True)

    sums = []
    for events in server.killed_everywhere("share", file.path, other.path, prepare=prepare):
        given = other.read().account.allowance if other.exists() else 0
        sums.append(file.read().account.allowance + given)
        assert file.read().account.allowance in {BUDGET, BUDGET - PER_PROOF}
        assert given in {0, PER_PROOF}
        assert given or ["share", str(other.path)] not in events
    # All there before, all there after; in between a share may be lost.
    assert set(sums) == {BUDGET, BUDGET - PER_PROOF}
    assert max(sums) <= BUDGET
    assert sums[0] == sums[-1] == BUDGET


def test_killed_at_every_call_of_a_first_proof(server: Server, tmp_path: Path) -> None:
    file = OpeningFile(tmp_path / "op.bin")
    for events in server.killed_everywhere("save", file.path, prepare=lambda: file.path.unlink(missing_ok=True)):
        rows = shown(events, file.path)
        assert not rows or rows == opened(file.read())
        if not file.exists():
            # What a killed process left behind is in nobody's way.
            HeldOpening(opening()).save(file.path)


def test_killed_at_any_time(server: Server, tmp_path: Path) -> None:
    chance = random.Random(11)
    seen = set()
    for turn in range(40):
        folder = tmp_path / str(turn)
        folder.mkdir()
        file = HeldOpening(opening()).save(folder / "op.bin")
        server.begin("everything", file.path, turn, "alone")
        ((_, child),) = server.hear("child")
        time.sleep(chance.random() * 0.03)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        events = server.hear("ended")
        check_accounts(events, folder)
        seen |= {event[0] for event in events} | {events[-1][1]}
    assert {"share", "rows", -signal.SIGKILL} <= seen


def check_accounts(events: list[list[Any]], folder: Path) -> None:
    """All that left is counted where it was opened, nobody opened more than he may, and all together may open no more than the budget."""
    books = {
        str(path): OpeningFile(path).read() for path in folder.iterdir() if path.suffix in {".opening", ".bin"} and path.stat().st_size
    }
    for path, one in books.items():
        assert shown(events, Path(path)) <= opened(one)
        assert one.account.opened <= one.account.allowance
    assert sum(one.account.allowance for one in books.values()) <= BUDGET
    assert {event[1] for event in events if event[0] == "share"} <= set(books)
    everything = {row for path in books for row in shown(events, Path(path))}
    assert len(everything) <= BUDGET


# At once


def race(*all_words: tuple[object, ...]) -> list[list[Any]]:
    """Processes that begin together."""
    processes = [start(*words) for words in all_words]
    for process in processes:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == ["ready"]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("!")
        process.stdin.flush()
    events = [event for process in processes for event in said(process)]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return events


def test_processes_at_once_spend_what_there_is_and_no_more(file: OpeningFile) -> None:
    events = race(*(("spend-all", file.path, seed) for seed in range(4)))
    rows = shown(events, file.path)
    assert rows == opened(file.read())
    assert BUDGET - PER_PROOF < len(rows) <= BUDGET


def test_processes_at_once_spend_and_share(file: OpeningFile, tmp_path: Path) -> None:
    events = race(*(("everything", file.path, seed) for seed in range(4)))
    check_accounts(events, tmp_path)
    assert {"share", "rows"} <= {event[0] for event in events}
    # Nobody was killed: nothing is lost either.
    assert sum(OpeningFile(path).read().account.allowance for path in tmp_path.iterdir()) == BUDGET


def test_threads_at_once(file: OpeningFile) -> None:
    refused: list[int] = []

    def spend(start: int) -> None:
        for row in range(start, 3000, 8):
            try:
                file.spend(COMMITMENT, [row])
            except OpeningSpent:
                refused.append(row)

    threads = [threading.Thread(target=spend, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read().account.left == 0
    assert opened(file.read()) == set(range(3000)) - set(refused)


def test_who_waits_for_a_replaced_file_sees_the_new_one(file: OpeningFile) -> None:
    """The lock is the old file's: had the waiter gone on with it, he would have written over what was counted meanwhile."""
    finished = threading.Event()

    def spend() -> None:
        file.spend(COMMITMENT, [2])
        finished.set()

    waiter = threading.Thread(target=spend)
    with file.file.locked():
        waiter.start()
        assert not finished.wait(0.1)
        file.file.replace(file.read().spent([1]).to_bytes())
    waiter.join()
    assert opened(file.read()) == {1, 2}


# Proofs


@pytest.fixture(scope="module")
def key() -> ProvingKey:
    return commit_model(Model.from_tflite(demo_model(), "digits"))


@pytest.fixture
def committed(key: ProvingKey, tmp_path: Path) -> OpeningFile:
    return commit_tensor(key.verifying_key.inputs[0], demo_digits()[0][0]).save(tmp_path / "op.bin")


def test_every_proof_is_counted_until_nothing_is_left(key: ProvingKey, committed: OpeningFile) -> None:
    image = demo_digits()[0][0]
    left = [BUDGET]

    def prove_once() -> None:
        proved = prove(key, [image], input_openings=[committed])
        assert proved.input_openings == [committed]
        assert proved.proof.statement.inputs == [committed.read().commitment]
        verify(key.verifying_key, proved.proof, inputs=[image], input_openings=[committed])
        left.append(committed.read().account.left)

    for _ in range(BUDGET // PER_PROOF):
        prove_once()
    with pytest.raises(OpeningSpent, match="rows of the commitment"):
        repeat(prove_once)
    assert all(100 < before - after <= PER_PROOF for before, after in itertools.pairwise(left))
    assert committed.read().account.left == left[-1]


def repeat(action: Callable[[], object]) -> None:
    """As often as there can ever be rows for."""
    for _ in range(20):
        action()


def test_the_first_proof_of_a_commitment_is_counted_too(key: ProvingKey) -> None:
    proved = prove(key, [demo_digits()[0][0]], commit_outputs=True)
    for holder in (*proved.input_openings, *proved.output_openings):
        assert holder is not None
        assert 150 <= holder.read().account.opened <= PER_PROOF


def test_a_proof_is_lost_with_its_count(key: ProvingKey, committed: OpeningFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written is not given away."""

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(FileError, match="No space"):
        prove(key, [demo_digits()[0][0]], input_openings=[committed])


def test_a_cancelled_proof_costs_nothing(key: ProvingKey, committed: OpeningFile) -> None:
    with pytest.raises(Cancelled):
        prove(key, [demo_digits()[0][0]], input_openings=[committed], progress=lambda phase, _: phase != "opening")
    assert committed.read().account.opened == 0


def test_an_opening_of_other_values_is_refused_before_anything_is_proved(key: ProvingKey, committed: OpeningFile) -> None:
    def never(phase: str, _: float) -> None:
        raise AssertionError(f"proving has begun: {phase}")

    with pytest.raises(BadInput, match="other values"):
        prove(key, [demo_digits()[1][0]], input_openings=[committed], progress=never)
    assert committed.read().account.opened == 0


def test_openings_where_they_have_no_use(key: ProvingKey, committed: OpeningFile) -> None:
    image = demo_digits()[0][0]
    plain = commit_model(Model.from_tflite(demo_model()), mode="plain")
    strong = commit_model(Model.from_tflite(demo_model()), security=128)
    for of, clear in ((key, True), (plain, False), (strong, False)):
        with pytest.raises(OpeningError):
            prove(of, [image], clear_inputs=clear, input_openings=[committed])
    for number in ([], [committed, committed]):
        with pytest.raises(BadInput, match="wrong number of openings"):
            prove(key, [image], input_openings=number)
    assert committed.read().account.opened == 0


def test_verification_needs_the_opening_and_changes_nothing(key: ProvingKey, committed: OpeningFile, tmp_path: Path) -> None:
    image, other = (demo_digits()[i][0] for i in range(2))
    proof = prove(key, [image], input_openings=[committed]).proof
    before = committed.file.read()
    with pytest.raises(OpeningError, match="hides it"):
        verify(key.verifying_key, proof, inputs=[image])
    with pytest.raises(BadInput, match="wrong number of openings"):
        verify(key.verifying_key, proof, inputs=[image], input_openings=[])
    verify(key.verifying_key, proof, inputs=[image], input_openings=[committed.read()])
    assert committed.file.read() == before
    for_verifier = committed.share(0, tmp_path / "verifier")
    verify(key.verifying_key, proof, inputs=[image], input_openings=[for_verifier])
    with pytest.raises(ProofRejected) as caught:
        verify(key.verifying_key, proof, inputs=[other], input_openings=[committed])
    assert caught.value.reason is RejectReason.INPUT
    with pytest.raises(OpeningError, match="another commitment"):
        verify(key.verifying_key, proof, inputs=[image], input_openings=[commit_tensor(key.verifying_key.inputs[0], image)])


def test_one_of_two_inputs_is_committed_ahead(tmp_path: Path) -> None:
    key = commit_model(Model.from_tflite(models.two_inputs()))
    first, second = np.arange(-3, 3, dtype=np.int8)[None], np.arange(6, 12, dtype=np.int8)[None]
    file = commit_tensor(key.verifying_key.inputs[1], second).save(tmp_path / "second")
    proved = prove(key, [first, second], input_openings=[None, file])
    assert isinstance(proved.input_openings[0], HeldOpening)
    assert proved.input_openings[1] is file
    verify(key.verifying_key, proved.proof, inputs=[first, second], input_openings=proved.input_openings)
    with pytest.raises(OpeningError, match="does not fit"):
        prove(key, [second, first], input_openings=[file, None])
