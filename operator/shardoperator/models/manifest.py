"""Reading a manifest file: one ShardedCluster, and the Secrets that come with it.

Invariant: a Secret's values are never shown: not in an error, not in a repr.
"""

from __future__ import annotations

import base64
import binascii
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
            return path.read_text().rstrip("\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ManifestError(f"Secret {name}, key {key}: {path} can't be read: {error.strerror}") from error

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
        text = path.read_text()
    except OSError as error:
        raise ManifestError(f"{path} can't be read: {error.strerror}") from error
    return parse_manifest(text, path.name, secrets)


def parse_manifest(text: str, name: str = "manifest", secrets: Path | None = None) -> Manifest:
    """The same for a text; `name` is for messages."""
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise ManifestError(f"{name} is not valid YAML: {error}") from None
    clusters = [document for document in documents if isinstance(document, dict) and document.get("kind") == "ShardedCluster"]
    if len(clusters) != 1:
        raise ManifestError(f"{name} must hold exactly one ShardedCluster, it holds {len(clusters)}")
    found = {}
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "Secret":
            found.update(_secret(document, name))
    try:
        cluster = ShardedCluster.model_validate(_expand(clusters[0], name))
    except ValidationError as error:
        raise ManifestError("\n".join(f"{name}: {line}" for line in validation_lines(error))) from None
    return Manifest(cluster, Secrets(found, secrets))


def validation_lines(error: ValidationError) -> Iterator[str]:
    """One line for each mistake: path, what is wrong, what stood there."""
    for one in error.errors():
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in one["loc"]).lstrip(".")
        shown = "" if isinstance(one["input"], dict | list) or one["type"] == "missing" else f" (found {one['input']!r})"
        yield f"{where or 'the object'}: {one['msg'].removeprefix('Value error, ')}{shown}"


def _secret(document: Mapping[str, Any], name: str) -> dict[str, dict[str, str]]:
    metadata = document.get("metadata")
    secret_name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(secret_name, str):
        raise ManifestError(f"{name}: a Secret has no metadata.name")
    values = {str(key): str(_expand(value, name)) for key, value in (document.get("stringData") or {}).items()}
    for key, value in (document.get("data") or {}).items():
        try:
            values.setdefault(str(key), base64.b64decode(str(value), validate=True).decode())
        except (binascii.Error, UnicodeDecodeError):
            raise ManifestError(f"{name}: Secret {secret_name}, data.{key} is not base64 of a text") from None
    return {secret_name: values}


def _expand(value: Any, name: str) -> Any:
    """${ENV} in texts."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _environment(match[1], name), value)
    if isinstance(value, dict):
        return {key: _expand(inner, name) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expand(inner, name) for inner in value]
    return value


def _environment(variable: str, name: str) -> str:
    if variable not in os.environ:
        raise ManifestError(f"{name}: the environment variable {variable} is not set")
    return os.environ[variable]
