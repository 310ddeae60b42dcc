"""Files that a config names, as stories: whatever is wrong with one is said with its place, and in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from router.config.load import ConfigError, parse_settings
from tests.certificates import Authority

CONFIG = """\
listen:
  - address: 127.0.0.1:8443
    tls:
      certificates:
        - certificate: {certificate}
          key: {key}
      {listener}
services:
  shop:
    versions: {{v1: {{endpoints: ["https://127.0.0.1:1"]}}}}
    rings: [{{name: everyone, version: v1}}]
    {service}
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def problems(directory: Path, **keys: str) -> list[str]:
    """What is wrong with the config above, filled with these; its own files are there and good."""
    given = {"certificate": "good.pem", "key": "good.key", "listener": "min_version: 1.2", "service": "salt: x", **keys}
    text = CONFIG.format(**given)
    try:
        parse_settings(text, str(directory / "router.yaml"))
    except ConfigError as error:
        return str(error).splitlines()
    return []


def test_good_files_are_found_beside_the_config_and_their_names_are_read(authority: Authority, tmp_path: Path) -> None:
    authority.sign("Shop.Example.com", "*.shop.example.com", "127.0.0.1", file="good")
    settings = parse_settings(
        CONFIG.format(
            certificate="good.pem", key="good.key", listener="client_ca: ca.pem\n      client_certificate: required",
            service="tls: {ca: ca.pem, certificate: good.pem, key: good.key}",
        ),
        str(tmp_path / "router.yaml"),
    )  # fmt: skip
    files = settings.files
    assert files.names["good.pem"] == ("shop.example.com", "*.shop.example.com")
    assert set(files.found) == {"good.pem", "good.key", "ca.pem"}
    assert files.found["good.pem"] == str(tmp_path / "good.pem")
    before = files.seen
    authority.sign("127.0.0.1", file="good")
    again = parse_settings(
        CONFIG.format(certificate="good.pem", key="good.key", listener="min_version: 1.2", service="salt: x"),
        str(tmp_path / "router.yaml"),
    )
    assert again.files.seen != before


@pytest.mark.parametrize(
    ("keys", "line", "words"),
    [
        ({"certificate": "gone.pem"}, 5, "cannot read"),
        ({"key": "gone.key"}, 6, "cannot read"),
        ({"certificate": "."}, 5, "cannot read"),
        ({"certificate": "empty.pem"}, 0, "empty.pem"),
        ({"certificate": "good.key"}, 0, "good.key"),
        ({"key": "good.pem"}, 6, "cannot be used together"),
        ({"key": "other.key"}, 6, "cannot be used together"),
        ({"key": "secret.key"}, 6, "cannot be used together"),
        ({"listener": "client_certificate: required"}, 7, "client_ca"),
        ({"listener": "client_ca: gone.pem"}, 7, "cannot read"),
        ({"listener": "client_ca: good.key"}, 7, "no certificates in PEM form"),
        ({"listener": "client_ca: empty.pem"}, 7, "no certificates in PEM form"),
        ({"service": "tls: {ca: gone.pem}"}, 12, "cannot read"),
        ({"service": "tls: {ca: good.key}"}, 12, "no certificates in PEM form"),
        ({"service": "tls: {certificate: good.pem}"}, 12, "come together"),
        ({"service": "tls: {key: good.key}"}, 12, "come together"),
        ({"service": "tls: {certificate: good.pem, key: other.key}"}, 12, "cannot be used together"),
        ({"service": "error_pages: {502: gone.html}"}, 12, "cannot read"),
        ({"service": "error_pages: {502: large.html}"}, 12, "too large for an error page"),
        ({"certificate": '"a\\0b"'}, 5, ""),
        ({"service": 'error_pages: {502: "a\\0b"}'}, 12, ""),
    ],
)
def test_what_is_wrong_with_a_file_is_said_where_it_is_named(
    authority: Authority, tmp_path: Path, keys: dict[str, str], line: int, words: str
) -> None:
    authority.sign("127.0.0.1", file="good")
    authority.sign("127.0.0.1", file="other")
    (tmp_path / "empty.pem").write_bytes(b"")
    (tmp_path / "large.html").write_bytes(b"x" * ((1 << 20) + 1))
    key = serialization.load_pem_private_key((tmp_path / "good.key").read_bytes(), None)
    (tmp_path / "secret.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    assert problems(tmp_path) == []
    found = problems(tmp_path, **keys)
    assert found
    assert all(words in one for one in found[:1]), found
    if line:
        assert f"router.yaml:{line}:" in found[0], found


@pytest.mark.parametrize("name", [".internal", "a" * 64 + ".internal", "shop internal", "a..b"])
def test_a_server_name_that_no_certificate_can_name_is_refused(authority: Authority, tmp_path: Path, name: str) -> None:
    authority.sign("127.0.0.1", file="good")
    assert problems(tmp_path, service="tls: {server_name: shop.internal}") == []
    assert problems(tmp_path, service=f"tls: {{server_name: {name}}}")
