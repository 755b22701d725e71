"""Reading a manifest file: one ShardedCluster, and the Secrets that come with it.

Invariant: a Secret's values are never shown: not in an error, not in a repr.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from shardoperator.errors import ManifestError
from shardoperator.models.spec import LoginRef, PasswordRef, ShardedCluster

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class Secrets:
    """Secret values by Secret and key: from the manifest's own documents, then from a folder with a folder for each Secret."""

    documents: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    directory: Path | None = None

    def value(self, name: str, key: str) -> str | None:
        """None if there is none; raises ManifestError if it can't be read."""
        if name in self.documents:
            return self.documents[name].get(key)
        if self.directory is None:
            return None
        path = self.directory / name / key
        try:
            return path.read_text(encoding="utf-8").rstrip("\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ManifestError(f"Secret {name}, key {key}: {path} can't be read: {error.strerror}") from error
        except UnicodeDecodeError:
            raise ManifestError(f"Secret {name}, key {key}: {path} holds no UTF-8 text") from None

    def login(self, ref: LoginRef) -> tuple[str, str] | None:
        """User name and password."""
        user, password = self.value(ref.name, ref.username_key), self.value(ref.name, ref.password_key)
        return None if user is None or password is None else (user, password)

    def password(self, ref: PasswordRef) -> str | None:
        """One password."""
        return self.value(ref.name, ref.key)


@dataclass(frozen=True)
class Manifest:
    """What a file holds."""

    cluster: ShardedCluster
    secrets: Secrets


def load_manifest(path: Path, secrets: Path | None = None) -> Manifest:
    """Read a manifest; raises ManifestError with one line for each mistake."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ManifestError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ManifestError(f"{path} is not a UTF-8 text") from None
    return parse_manifest(text, path.name, secrets)


def parse_manifest(text: str, name: str = "manifest", secrets: Path | None = None) -> Manifest:
    """The same for a text; `name` is for messages."""
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise ManifestError(f"{name} is not valid YAML: {_without_text(error)}") from None
    clusters = [document for document in documents if isinstance(document, dict) and document.get("kind") == "ShardedCluster"]
    if len(clusters) != 1:
        raise ManifestError(f"{name} must hold exactly one ShardedCluster, it holds {len(clusters)}")
    found = {}
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "Secret":
            found.update(_secret(document, name))
    return Manifest(_cluster(_expand(clusters[0], name), _numbered(clusters[0]), name), Secrets(found, secrets))


def _cluster(expanded: Any, numbered: Any, name: str) -> ShardedCluster:
    """Where a text does not fit, a variable that holds a number may have been meant as one: `port: ${PORT}`."""
    try:
        return ShardedCluster.model_validate(expanded)
    except ValidationError as error:
        lines = "\n".join(f"{name}: {line}" for line in validation_lines(error))
    try:
        return ShardedCluster.model_validate(numbered)
    except ValidationError:
        raise ManifestError(lines) from None


def validation_lines(error: ValidationError) -> Iterator[str]:
    """One line for each mistake: path, what is wrong, what stood there."""
    for one in error.errors():
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in one["loc"]).lstrip(".")
        yield f"{where or 'the object'}: {one['msg'].removeprefix('Value error, ')}{_shown(one)}"


def _shown(error: Any) -> str:
    """What stood there, unless it is long, or may be a password in a place where none belongs."""
    last = str(error["loc"][-1]).lower() if error["loc"] else ""
    misplaced = error["type"] in ("extra_forbidden", "missing") or "password" in last or "secret" in last
    return "" if misplaced or isinstance(error["input"], dict | list) else f" (found {error['input']!r})"


def _without_text(error: yaml.YAMLError) -> str:
    """PyYAML quotes the line, and an alias or tag by its name: any of them may be a password."""
    mark, problem = getattr(error, "problem_mark", None), str(getattr(error, "problem", None) or "it can't be read")
    if any(word in problem for word in ("alias", "anchor", "tag")):
        problem = problem.split(" '", 1)[0]
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return f"{where}{problem} (texts with special characters need quotes)"


def _secret(document: Mapping[str, Any], name: str) -> dict[str, dict[str, str]]:
    metadata = document.get("metadata")
    secret_name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(secret_name, str):
        raise ManifestError(f"{name}: a Secret has no metadata.name")
    values = {key: str(_expand(text, name)) for key, text in _texts(document, "stringData", f"{name}: Secret {secret_name}")}
    for key, text in _texts(document, "data", f"{name}: Secret {secret_name}"):
        try:
            values.setdefault(key, base64.b64decode("".join(text.split()), validate=True).decode())
        except ValueError:
            raise ManifestError(f"{name}: Secret {secret_name}, data.{key} is not base64 of a text") from None
    return {secret_name: values}


def _texts(document: Mapping[str, Any], field_name: str, where: str) -> Iterator[tuple[str, str]]:
    """YAML reads 0123, yes or 1.10 as something else than what was written, so a value must be a text, as in Kubernetes."""
    values = document.get(field_name) or {}
    if not isinstance(values, dict):
        raise ManifestError(f"{where}, {field_name} must be a mapping of keys to texts")
    for key, value in values.items():
        if not isinstance(value, str):
            raise ManifestError(f"{where}, {field_name}.{key} must be a text: put it in quotes")
        yield str(key), value


def _expand(value: Any, name: str) -> Any:
    """${ENV} in texts."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _environment(match[1], name), value)
    if isinstance(value, dict):
        return {key: _expand(inner, name) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expand(inner, name) for inner in value]
    return value


def _numbered(value: Any) -> Any:
    """The same, and what is nothing but a variable that holds a whole number is that number."""
    if isinstance(value, dict):
        return {key: _numbered(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbered(inner) for inner in value]
    match = _VARIABLE.fullmatch(value) if isinstance(value, str) else None
    text = _environment(match[1], "") if match is not None else ""
    return int(text) if text.isascii() and text.isdigit() else _expand(value, "")


def _environment(variable: str, name: str) -> str:
    if variable not in os.environ:
        raise ManifestError(f"{name}: the environment variable {variable} is not set")
    return os.environ[variable]
