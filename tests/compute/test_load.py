"""How busy the processors are, from the kernel's counters."""

import time
from pathlib import Path

import pytest

from nexus_edge.compute.load import SAMPLES, Load, Times, processor_times


def counted(proc: Path, line: str) -> Path:
    proc.mkdir(exist_ok=True)
    (proc / "stat").write_text(f"{line}\ncpu0 1 2 3 4\nintr 1\n", encoding="ascii")
    return proc


def test_idle_and_waiting_for_disks_is_not_busy(tmp_path: Path) -> None:
    assert processor_times(counted(tmp_path, "cpu  10 20 30 400 50 6 7 8 9 10")) == Times(81, 531)


def test_a_sample_is_the_share_since_the_one_before(tmp_path: Path) -> None:
    load = Load(counted(tmp_path, "cpu 100 0 0 100 0 0 0 0"))
    load.sample()
    assert not load.samples
    for line in ("cpu 125 0 0 175 0 0 0 0", "cpu 125 0 0 275 0 0 0 0", "cpu 225 0 0 275 0 0 0 0"):
        counted(tmp_path, line)
        load.sample()
    assert list(load.samples) == [0.25, 0.0, 1.0]


def test_counters_that_stand_or_go_back_give_no_sample(tmp_path: Path) -> None:
    load = Load(counted(tmp_path, "cpu 100 0 0 100 0 0 0 0"))
    for line in ("cpu 100 0 0 100 0 0 0 0", "cpu 100 0 0 100 0 0 0 0", "cpu 10 0 0 10 0 0 0 0"):
        counted(tmp_path, line)
        load.sample()
    assert not load.samples


def test_two_minutes_are_kept(tmp_path: Path) -> None:
    load = Load(tmp_path)
    for number in range(SAMPLES + 10):
        counted(tmp_path, f"cpu {number * number} 0 0 {1000 * number - number * number} 0 0 0 0")
        load.sample()
    assert len(load.samples) == SAMPLES
    assert load.samples == tuple(sorted(load.samples)), "the newest last"


@pytest.mark.parametrize("line", ["", "cpu", "cpu 1 2 3", "cpu a b c d e", "disk 1 2 3 4 5"])
def test_a_kernel_that_does_not_tell_gives_nothing(tmp_path: Path, line: str) -> None:
    assert processor_times(counted(tmp_path, line)) is None
    assert processor_times(tmp_path / "none") is None
    load = Load(tmp_path)
    load.sample()
    load.sample()
    assert not load.samples


def test_work_is_seen_on_this_machine() -> None:
    load = Load()
    load.sample()
    end = time.monotonic() + 30
    while not any(load.samples) and time.monotonic() < end:
        sum(range(100_000))
        load.sample()
    assert 0 < max(load.samples) <= 1
