"""Reading manifests: messages name path and value, Secrets come from three places, and no secret is ever shown."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from shardoperator.errors import ManifestError
from shardoperator.models.manifest import Manifest, load_manifest, parse_manifest
from shardoperator.models.spec import LoginRef, PasswordRef

HIDDEN = "hunter2-of-the-tests"

CLUSTER = """\
apiVersion: pgshepherd.io/v1alpha1
kind: ShardedCluster
metadata: {name: shop}
spec:
  database: shop
  shards:
    - {name: shop-0, host: pg-0.example, database: shop, credentialsSecretRef: {name: recovery}}
    - {name: shop-1, host: pg-1.example, database: shop, credentialsSecretRef: {name: recovery}}
  users: [{name: app, passwordSecretRef: {name: app}}]
"""
LOGIN = LoginRef(name="recovery")
PASSWORD = PasswordRef(name="app")


def secret(**values: str) -> str:
    return (
        f"---\n{{kind: Secret, metadata: {{name: recovery}}, {', '.join(f'{key}: {value}' for key, value in values.items())}}}\n"
    )


def refused(text: str, secrets: Path | None = None) -> str:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, "shop.yaml", secrets)
    assert caught.value.__cause__ is None
    assert HIDDEN not in str(caught.value)
    return str(caught.value)


def test_defaults() -> None:
    spec = parse_manifest(CLUSTER).cluster.spec
    assert [spec.number(position) for position in (0, 1)] == [0, 1]
    assert (spec.shards[0].port, spec.two_phase_commit.enabled, spec.proxy.port, spec.recovery.mode) == (
        5432,
        True,
        6432,
        "Resolve",
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [("", 0), ("just a text", 0), ("[1, 2]", 0), (CLUSTER + "---\n" + CLUSTER, 2), ("kind: Secret\nmetadata: {name: x}", 0)],
)
def test_exactly_one_cluster(text: str, found: int) -> None:
    assert refused(text) == f"shop.yaml must hold exactly one ShardedCluster, it holds {found}"


MISTAKES: list[tuple[str, str, str]] = [
    ("database: shop\n  shards:", "shards:", "spec.database: Field required"),
    ("name: shop-1, host", "name: Shop_1, host", "spec.shards[1].name: only a-z, 0-9 and - are allowed"),
    ("name: shop-1, host", "name: Shop_1, host", "(found 'Shop_1')"),
    ("host: pg-1.example", "host: pg-1.example, port: 70000", "port: Input should be less than or equal to 65535 (found 70000)"),
    ("host: pg-1.example", "host: pg-1.example, number: 0", "the position decides which rows a shard holds; shop-1 has 0"),
    ("name: shop-1, host", "name: shop-0, host", "shard names must be unique; twice: shop-0"),
    ("host: pg-1.example", "host: pg-0.example", "spec.shards: host, port and database must be unique; twice: pg-0.example"),
    ("name: app, passwordSecretRef", "naem: app, passwordSecretRef", "spec.users[0].naem: Extra inputs are not permitted"),
    ("  users:", "  recovery: {alertAfter: soon}\n  users:", "alertAfter: a duration is written like 5s, 2.5s, 10m or 1h30m"),
    ("  users:", "  recovery: {mode: Guess}\n  users:", "spec.recovery.mode: Input should be 'Observe' or 'Resolve' (found 'Guess')"),
    ("pgshepherd.io/v1alpha1", "pgshepherd.io/v2", "apiVersion: Input should be 'pgshepherd.io/v1alpha1' (found 'pgshepherd.io/v2')"),
    ("metadata: {name: shop}", "metadata: {}", "metadata.name: Field required"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_a_mistake_is_named_with_path_and_value(old: str, new: str, message: str) -> None:
    said = refused(CLUSTER.replace(old, new))
    assert message in said
    assert said.startswith("shop.yaml: ")


def test_one_line_for_each_mistake() -> None:
    assert len(refused(CLUSTER.replace("database: shop,", "port: none,")).splitlines()) == 4


PASSWORDS_IN_WRONG_PLACES = [
    CLUSTER.replace("name: app, passwordSecretRef", f"name: app, password: {HIDDEN}, passwordSecretRef"),
    CLUSTER.replace("passwordSecretRef: {name: app}", f"passwordSecretRef: {HIDDEN}"),
    CLUSTER.replace("credentialsSecretRef: {name: recovery}", f"credentialsSecretRef: {HIDDEN}"),
    CLUSTER.replace("credentialsSecretRef: {name: recovery}", f"credentialsSecretRef: {{name: recovery, secret: {HIDDEN}}}"),
    CLUSTER + f"  pgpass: {HIDDEN}\n",
    CLUSTER + secret(stringData=f'{{password: "{HIDDEN}}}'),
    CLUSTER + secret(stringData=f"{{password: *{HIDDEN}}}"),
    CLUSTER + secret(stringData=f"{{password: !{HIDDEN} x}}"),
    CLUSTER + secret(stringData=f"{{password: !x!{HIDDEN} x}}"),
    CLUSTER + secret(stringData=f"{{password: @{HIDDEN}}}"),
    CLUSTER + secret(stringData=f"{{password: [{HIDDEN}]}}"),
    CLUSTER + secret(stringData=f"[{HIDDEN}]"),
    CLUSTER + secret(data=f"{{password: {HIDDEN}}}"),
]


@pytest.mark.parametrize("text", PASSWORDS_IN_WRONG_PLACES)
def test_a_password_in_a_wrong_place_is_not_shown(text: str) -> None:
    assert refused(text).startswith("shop.yaml")


def test_bad_yaml_says_where() -> None:
    assert "line 3, column 14" in refused("a: 1\nb:\n  - {c: [1, 2}\n")


@pytest.mark.parametrize("value", ["0123", "yes", "1.10", "null", "2020-01-01"])
@pytest.mark.parametrize("field", ["data", "stringData"])
def test_what_yaml_would_change_must_be_quoted(field: str, value: str) -> None:
    said = refused(CLUSTER + secret(**{field: f"{{password: {value}}}"}))
    assert said == f"shop.yaml: Secret recovery, {field}.password must be a text: put it in quotes"


def test_secrets_of_the_file() -> None:
    encoded = base64.b64encode(HIDDEN.encode()).decode()
    loaded = parse_manifest(
        CLUSTER + secret(stringData='{username: "r"}', data=f'{{password: "{encoded[:8]}\\n{encoded[8:]}\\n"}}')
    )
    assert loaded.secrets.login(LOGIN) == ("r", HIDDEN)
    assert loaded.secrets.password(PASSWORD) is None


def test_string_data_comes_before_data() -> None:
    loaded = parse_manifest(CLUSTER + secret(stringData='{username: "r", password: "new"}', data='{password: "b2xk"}'))
    assert loaded.secrets.login(LOGIN) == ("r", "new")


def test_base64() -> None:
    assert (
        refused(CLUSTER + secret(data='{password: "%%%"}')) == "shop.yaml: Secret recovery, data.password is not base64 of a text"
    )
    assert (
        refused(CLUSTER + secret(data='{password: "gICA"}'))
        == "shop.yaml: Secret recovery, data.password is not base64 of a text"
    )
    assert (
        refused(CLUSTER + secret(data='{password: "é"}')) == "shop.yaml: Secret recovery, data.password is not base64 of a text"
    )


def test_a_secret_without_a_name() -> None:
    assert refused(CLUSTER + "---\n{kind: Secret}\n") == "shop.yaml: a Secret has no metadata.name"


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSHEPHERD_TEST", HIDDEN)
    monkeypatch.setenv("PGSHEPHERD_TEST_PORT", "5433")
    text = CLUSTER.replace("pg-1.example", '"pg-1.example", port: "${PGSHEPHERD_TEST_PORT}"')
    loaded = parse_manifest(text + secret(stringData='{username: "r", password: "a${PGSHEPHERD_TEST}b"}'))
    assert loaded.cluster.spec.shards[1].port == 5433
    assert loaded.secrets.login(LOGIN) == ("r", f"a{HIDDEN}b")


def test_a_missing_environment_variable_is_named() -> None:
    said = refused(CLUSTER + secret(stringData='{password: "${PGSHEPHERD_NOT_SET}"}'))
    assert said == "shop.yaml: the environment variable PGSHEPHERD_NOT_SET is not set"


def test_a_folder_of_secrets(tmp_path: Path) -> None:
    for path, text in {"recovery/username": "r\n", "recovery/password": f"{HIDDEN}\n", "app/password": "ö"}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    loaded = parse_manifest(CLUSTER, secrets=tmp_path)
    assert loaded.secrets.login(LOGIN) == ("r", HIDDEN)
    assert loaded.secrets.password(PASSWORD) == "ö"
    assert loaded.secrets.value("app", "token") is None
    assert loaded.secrets.login(LoginRef.model_validate({"name": "recovery", "usernameKey": "user"})) is None


def test_the_files_own_secrets_come_before_the_folder(tmp_path: Path) -> None:
    (tmp_path / "recovery").mkdir()
    (tmp_path / "recovery" / "password").write_text("of the folder")
    loaded = parse_manifest(CLUSTER + secret(stringData='{username: "r", password: "of the file"}'), secrets=tmp_path)
    assert loaded.secrets.value("recovery", "password") == "of the file"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_an_unreadable_secret_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "app" / "password"
    path.parent.mkdir()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    loaded = parse_manifest(CLUSTER, secrets=tmp_path)
    with pytest.raises(ManifestError, match=r"Secret app, key password: .*app/password"):
        loaded.secrets.password(PASSWORD)


def test_reprs_show_no_secret(tmp_path: Path) -> None:
    loaded: Manifest = parse_manifest(CLUSTER + secret(stringData=f'{{username: "r", password: "{HIDDEN}"}}'))
    assert HIDDEN not in repr(loaded)
    assert HIDDEN not in repr(loaded.secrets)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none.yaml can't be read: No such file"):
        load_manifest(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match=r"binary.yaml is not a UTF-8 text"):
        load_manifest(tmp_path / "binary.yaml")
    (tmp_path / "good.yaml").write_text(CLUSTER)
    assert load_manifest(tmp_path / "good.yaml").cluster.metadata.name == "shop"
