"""What is in the cache is whole, and made once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tools.cluster.cache import made


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    calls: list[Path] = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "program").touch()

    target = tmp_path / "kube" / "v1"
    assert made(target, make) == made(target, make) == target
    assert len(calls) == 1
    assert calls[0] != target, "it was made in place: a killed build would be taken for a whole one"
    assert (target / "program").exists()


def test_nothing_is_left_of_a_build_that_failed(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError("no compiler")

    with pytest.raises(RuntimeError, match="no compiler"):
        made(tmp_path / "v1", make)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_what_a_killed_build_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".v1.making-killed").mkdir()
    made(tmp_path / "v1", lambda folder: (folder / "program").touch())
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["v1"]


def test_two_at_once_make_it_once(tmp_path: Path) -> None:
    calls: list[Path] = []
    second_waits = threading.Event()

    def make(folder: Path) -> None:
        calls.append(folder)
        second_waits.wait(0.2)

    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(made, tmp_path / "v1", make) for _ in range(2)]
    assert [one.result() for one in done] == [tmp_path / "v1"] * 2
    assert len(calls) == 1
