"""Rules about files that no linter knows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
LOCKED = re.compile(r"requirements/.*\.txt|LICENSE|.*/go\.sum")


def files() -> list[PurePosixPath]:
    """Tracked and new ones, but none that git ignores; from a source archive without git: all."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        listed = [str(path) for path in found if not any(part.startswith(".") or part == "__pycache__" for part in path.parts)]
    return [PurePosixPath(name) for name in listed if (ROOT / name).is_file()]


FILES = files()


def text(path: PurePosixPath) -> str:
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


def test_files_were_found() -> None:
    assert PurePosixPath("operator/shardoperator/names.py") in FILES


@pytest.mark.parametrize("name", ["__init__.py", "conftest.py"])
def test_nothing_makes_operator_a_package(name: str) -> None:
    """It would shadow the standard library's module."""
    assert PurePosixPath("operator", name) not in FILES


def test_no_folder_under_tests_is_named_operator() -> None:
    assert not [str(path) for path in FILES if path.parts[0] == "tests" and "operator" in path.parts[:-1]]


def test_tests_have_no_packages() -> None:
    assert not [str(path) for path in FILES if path.parts[0] == "tests" and path.name == "__init__.py"]


def test_no_file_is_long() -> None:
    lengths = {str(path): len(text(path).splitlines()) for path in FILES if not LOCKED.fullmatch(str(path))}
    assert not {path: length for path, length in lengths.items() if length > 500}


FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.}/])/(?:home|root|Users|work)/\w|/tmp/\w"),
    "the address of a package registry": re.compile(
        r"(?:pypi\.org|pythonhosted\.org|proxy\.golang\.org|registry\.npmjs\.org|index-url\s*[=:]\s*\S|extra-index-url\s*[=:])"
    ),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    """Locks made elsewhere must work here, and the other way round."""
    this = PurePosixPath(Path(__file__).relative_to(ROOT).as_posix())
    found = [f"{path}: {hit.group()}" for path in FILES if path != this for hit in [FORBIDDEN[what].search(text(path))] if hit]
    assert not found
