"""The three files: what is unknown is warned of, what can't be is refused with file, key, value and what is allowed."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import pytest

from shardproxy.config.keys import PGDOG_SECTIONS, USER_KEYS
from shardproxy.config.load import LoadedConfig, load, render
from shardproxy.errors import ConfigError

PGDOG = """
[general]
port = 6432
two_phase_commit = true

[[databases]]
name = "shop"
host = "127.0.0.1"
shard = 0

[[databases]]
name = "shop"
host = "127.0.0.2"
port = 5433
shard = 1

[[sharded_tables]]
database = "shop"
column = "customer_id"
"""
USERS = """
[[users]]
name = "app"
database = "shop"
password = "pa55word"
"""
OURS = """
[cluster]
id = "00c0ffee00c0ffee"

[[shards]]
number = 3
name = "shop-0"
system_identifier = 7
coordinator_user = "c"
coordinator_password = "c00rdinator"

[[shards]]
number = 5
name = "shop-1"
system_identifier = 8
coordinator_user = "c"
coordinator_password = "c00rdinator"
"""


def write(directory: Path, pgdog: str = PGDOG, users: str = USERS, ours: str | None = OURS) -> tuple[Path, Path]:
    (directory / "pgdog.toml").write_text(pgdog)
    (directory / "users.toml").write_text(users)
    if ours is not None:
        (directory / "pgshepherd.toml").write_text(ours)
    return directory / "pgdog.toml", directory / "users.toml"


def loaded(directory: Path, **texts: str | None) -> LoadedConfig:
    return load(*write(directory, **texts))  # type: ignore[arg-type]


def test_the_defaults_are_pgdogs(tmp_path: Path) -> None:
    found = loaded(tmp_path)
    assert found.warnings == ()
    general = found.config.pgdog.general
    assert (general.default_pool_size, general.checkout_timeout, general.pooler_mode) == (10, 5000, "transaction")
    assert found.config.pgshepherd is not None
    assert [shard.number for shard in found.config.pgshepherd.shards] == [3, 5]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    config = loaded(tmp_path).config
    again = tmp_path / "again"
    again.mkdir()
    for name, text in render(config).items():
        (again / name).write_text(text)
    assert load(again / "pgdog.toml", again / "users.toml").config == config


def test_unknown_keys_are_warned_of_by_name(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        pgdog=PGDOG.replace("port = 6432", "port = 6432\nporrt = 1\nban_timeout = 5")
        + "\n[nonsense]\na = 1\n\n[admin]\nname = 'x'\n",
        users=USERS + "colour = 'red'\nread_only = true\n\n[other]\na = 1\n",
        ours="[two_phase_commit]\nlast_agents = true\n" + OURS,
    )
    assert set(found.warnings) == {
        "pgdog.toml: unknown key general.porrt is ignored",
        "pgdog.toml: general.ban_timeout is a key of PgDog's that pgshepherd does not support yet; it is ignored",
        "pgdog.toml: unknown section [nonsense] is ignored",
        "pgdog.toml: admin.name is a key of PgDog's that pgshepherd does not support yet; it is ignored",
        "users.toml: unknown key users.colour is ignored",
        "users.toml: users.read_only is a key of PgDog's that pgshepherd does not support yet; it is ignored",
        "users.toml: section [other] is ignored",
        "pgshepherd.toml: unknown key two_phase_commit.last_agents is ignored",
    }


def test_without_our_file(tmp_path: Path) -> None:
    found = loaded(tmp_path, ours=None)
    assert found.config.pgshepherd is None
    assert found.warnings == ("no pgshepherd.toml: writes on several shards will be refused, because two_phase_commit is on",)


def test_what_is_rendered_holds_none_but_pgdogs_keys(tmp_path: Path) -> None:
    import tomllib

    files = render(loaded(tmp_path).config)
    for section, content in tomllib.loads(files["pgdog.toml"]).items():
        for entry in content if isinstance(content, list) else [content]:
            assert entry.keys() <= PGDOG_SECTIONS[section]
    assert tomllib.loads(files["users.toml"])["users"][0].keys() <= USER_KEYS


IMPOSSIBLE = [
    ("pgdog", "port = 6432", "port = 0", "pgdog.toml: general.port = 0: Input should be greater than or equal to 1"),
    ("pgdog", "port = 6432", "port = 65536", "pgdog.toml: general.port = 65536: Input should be less than or equal to 65535"),
    ("pgdog", "port = 6432", "port = 'x'", "pgdog.toml: general.port = 'x': Input should be a valid integer"),
    ("pgdog", "port = 6432", "pooler_mode = 'session'", "general.pooler_mode = 'session': Input should be 'transaction'"),
    ("pgdog", "port = 6432", "auth_type = 'md5'", "general.auth_type = 'md5': Input should be 'scram'"),
    ("pgdog", "port = 6432", "default_pool_size = 0", "default_pool_size = 0: Input should be greater than or equal to 1"),
    ("pgdog", "port = 6432", "checkout_timeout = -1", "checkout_timeout = -1: Input should be greater than or equal to 0"),
    ("pgdog", "port = 6432", "log_level = 'loud'", "log_level = 'loud': Input should be 'trace', 'debug', 'info', 'warn' or 'error'"),
    ("pgdog", "two_phase_commit = true", "two_phase_commit = 'maybe'", "two_phase_commit = 'maybe': Input should be a valid boolean"),
    ("pgdog", "shard = 1", "shard = 2", "pgdog.toml: databases must have the shards 0 to 1, one each, found [0, 2]"),
    ("pgdog", "shard = 1", "shard = 0", "pgdog.toml: databases must have the shards 0 to 1, one each, found [0, 0]"),
    ("pgdog", "shard = 1", "role = 'replica'", "pgdog.toml: databases[1].role = 'replica': Input should be 'primary'"),
    ("pgdog", 'host = "127.0.0.1"', "", "pgdog.toml: databases[0].host is missing"),
    ("pgdog", 'column = "customer_id"', "", "pgdog.toml: sharded_tables[0].column is missing"),
    ("pgdog", 'column = "customer_id"', "column = ''", "sharded_tables[0].column = '': String should have at least 1 character"),
    ("pgdog", 'column = "customer_id"', "column = 'c'\ndata_type = 'x'", "data_type = 'x': Input should be 'bigint', 'varchar' or 'uuid'"),
    ("pgdog", 'column = "customer_id"', "column = 'c'\nhasher = 'sha1'", "hasher = 'sha1': Input should be 'postgres'"),
    ("pgdog", 'database = "shop"', 'database = "other"', "no [[databases]] entry is named 'other'; there is only ['shop']"),
    ("pgdog", PGDOG, "[general]", "pgdog.toml: databases is missing"),
    ("pgdog", PGDOG, "general = 5", "pgdog.toml: general = 5: Input should be a valid dictionary"),
    ("pgdog", "[general]", "[general", "pgdog.toml is not valid TOML"),
    ("users", 'database = "shop"', 'database = "other"', "no [[databases]] entry is named 'other'"),
    ("users", 'password = "pa55word"', "", "users.toml: users[0].password is missing"),
    ("users", 'password = "pa55word"', "password = 4711", "password = (not shown): Input should be a valid string"),
    ("users", 'password = "pa55word"', "password = 'x'\npool_size = 0", "pool_size = 0: Input should be greater than or equal to 1"),
    ("users", USERS, USERS + USERS, "users.toml: each user has one [[users]] entry, found two of ['app']"),
    ("ours", 'id = "00c0ffee00c0ffee"', 'id = "C0FFEE"', "cluster.id = 'C0FFEE': String should match pattern '^[0-9a-f]{16}$'"),
    ("ours", 'id = "00c0ffee00c0ffee"', "", "pgshepherd.toml: cluster.id is missing"),
    ("ours", "number = 5", "number = 3", "two [[shards]] have the same number"),
    ("ours", "number = 5", "number = -1", "shards[1].number = -1: Input should be greater than or equal to 0"),
    ("ours", "system_identifier = 8", "", "pgshepherd.toml: shards[1].system_identifier is missing"),
    ("ours", "[cluster]", "[two_phase_commit]\nlast_agent = 'no way'\n[cluster]", "last_agent = 'no way': Input should be a valid boolean"),
    ("ours", "[cluster]", "[two_phase_commit]\ndurability = 'remote'\n[cluster]", "durability = 'remote': Input should be 'local' or"),
    ("ours", "number = 5", "number = 5\nstandbys = 'some'", "shards[1].standbys = 'some': Input should be 'unknown'"),
    ("ours", "[cluster]", "[two_phase_commit]\nslots_per_shard = 0\n[cluster]", "slots_per_shard = 0: Input should be greater than or"),
    ("ours", "[cluster]", "[two_phase_commit]\ndeadlock_timeout = 9\n[cluster]", "deadlock_timeout = 9: Input should be greater"),
    ("ours", OURS[OURS.rindex("[[shards]]") :], "", "pgshepherd.toml: [[shards]] has 1 entries, pgdog.toml 2"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "says"), IMPOSSIBLE)
def test_impossible_values_are_refused(tmp_path: Path, file: str, old: str, new: str, says: str) -> None:
    text = {"pgdog": PGDOG, "users": USERS, "ours": OURS}[file]
    assert old in text
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, **{file: text.replace(old, new, 1)})
    assert says in str(caught.value)
    assert "4711" not in str(caught.value)
    assert "pa55word" not in str(caught.value)


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, pgdog=PGDOG.replace("port = 6432", "port = 0\nauth_type = 'md5'"))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("name", ["pgdog.toml", "users.toml", "named.toml"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    pgdog, users = write(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=f"{name} can't be read: No such file or directory"):
        load(pgdog, users, tmp_path / "named.toml" if name == "named.toml" else None)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    pgdog, users = write(tmp_path)
    pgdog.write_bytes(b"\xff\xfe\0")
    with pytest.raises(ConfigError, match=r"pgdog\.toml is not valid TOML"):
        load(pgdog, users)


def test_passwords_stay_out_of_representations(tmp_path: Path) -> None:
    assert "pa55word" not in repr(loaded(tmp_path).config)
    assert "c00rdinator" not in repr(loaded(tmp_path).config)


async def _start(pgdog: Path, users: Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shardoperator.cli.main", "proxy", "--config", str(pgdog), "--users", str(users),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_a_process_refuses_to_start(tmp_path: Path) -> None:
    code, said = await _start(*write(tmp_path, pgdog=PGDOG.replace("port = 6432", "port = 70000")))
    assert (code, said) == (2, "pgdog.toml: general.port = 70000: Input should be less than or equal to 65535\n")
    code, said = await _start(*write(tmp_path, users=USERS.replace('password = "pa55word"', "password = 1")))
    assert (code, said) == (2, "users.toml: users[0].password = (not shown): Input should be a valid string\n")


async def test_a_process_whose_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        here = f'host = "127.0.0.1"\nport = {port}'
        code, said = await _start(*write(tmp_path, pgdog=PGDOG.replace("port = 6432", here)))
    assert code == 2
    assert f"general.port = {port}: can't listen on 127.0.0.1:{port}: " in said
    assert "Traceback" not in said
