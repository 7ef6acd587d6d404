"""Freed blocks stay with the process: what the C library is told. What it is worth is for the benchmarks."""

import ctypes
import platform
from collections.abc import Callable

import pytest

from wardround.training.memory import give_back, keep_freed, keep_nothing


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_glibc_takes_both_settings() -> None:
    assert keep_freed.__wrapped__()


def test_a_setting_that_is_refused_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Library:
        def mallopt(self, parameter: int, value: int) -> int:
            asked.append(parameter)
            return 0

    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    assert not keep_freed.__wrapped__()
    assert asked[0] == -1


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("it was loaded"))
    assert not keep_freed.__wrapped__()


@pytest.mark.parametrize("told", [give_back, keep_nothing])
def test_what_is_freed_may_go_back(told: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    class Library:
        def malloc_trim(self, pad: int) -> int:
            asked.append((pad,))
            return 1

        def mallopt(self, parameter: int, value: int) -> int:
            asked.append((parameter, value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    assert told()
    assert asked == [(0,) if told is give_back else (-3, 2**20)]
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not told()
    assert len(asked) == 1
