"""A snapshot to ask questions of, beside the one that routes: with its lists, and what there is of keys and tables.

The admin side shows no secrets, and member tables are files of the router's machine. What is missing here is said in
``notes`` rather than guessed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from router.cli.options import fetch_state, find_config, load_or_exit, snapshot_in
from router.core.hashing import fingerprint
from router.core.lookup import Lookup, no_tables
from router.core.snapshot import Snapshot

if TYPE_CHECKING:
    from router.config.settings import Settings
    from router.core.audience import IdentitySpec
from router.core.spec import SnapshotSpec


class KeysOfFile:
    """A text file with one key a line, asked as a member table is."""

    __slots__ = ("_fingerprints",)

    def __init__(self, content: bytes) -> None:
        from router.config.files import keys_in

        self._fingerprints = frozenset(fingerprint(key) for key in keys_in(content))

    def has(self, fingerprint: int, /) -> bool:
        return fingerprint in self._fingerprints


@dataclass(slots=True)
class Compiled:
    """A snapshot with its tables. ``notes`` are sentences on what could not be had."""

    snapshot: Snapshot
    tables: Tables
    notes: list[str]


class Tables:
    """Opens what a snapshot names: member tables, and files of keys in the place of one."""

    def __init__(self, lists: frozenset[str], notes: list[str]) -> None:
        self._lists = lists
        self._notes = notes
        self._open: dict[str, Lookup] = {}

    def __call__(self, path: str) -> Lookup:
        if path not in self._open:
            self._open[path] = self._opened(path)
        return self._open[path]

    def _opened(self, path: str) -> Lookup:
        try:
            if path in self._lists:
                return KeysOfFile(Path(path).read_bytes())
            from router.members.files import open_table

            return open_table(path)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            self._notes.append(f"{path} cannot be read here ({why}): nobody is found in it")
            return no_tables(path)


def compiled(config_path: Path | None, *, live: bool, admin_url: str) -> Compiled:
    """What the running router uses now if ``live``, else what the config file says."""
    notes: list[str] = []
    if live:
        state = fetch_state(admin_url)
        spec, lists = _with_local_keys(snapshot_in(state, admin_url), state.get("config_path"), notes), frozenset[str]()
    else:
        from router.config.compile import snapshot_spec
        from router.config.files import list_files

        settings = load_or_exit(find_config(config_path, admin_url))
        lists = frozenset(list_files(settings))
        spec = snapshot_spec(settings, {}, 0, lists={path: path for path in lists})
        _note_fetched_keys(settings, notes)
    tables = Tables(lists, notes)
    return Compiled(Snapshot(_without_unknown_signatures(spec, notes), tables), tables, notes)


def _with_local_keys(spec: SnapshotSpec, config_path: object, notes: list[str]) -> SnapshotSpec:
    """The admin side tells no secrets: they are taken from the config file, where that can be read here."""
    from router.config.load import ConfigError, load_settings
    from router.config.trust import trust_spec

    try:
        if not isinstance(config_path, str):
            raise OSError
        settings = load_settings(Path(config_path), os.environ)
    except (ConfigError, OSError):
        notes.append(
            "the running router tells no secrets, and its config cannot be read here: no signature is believed"
        )
        return replace(spec, trust=replace(spec.trust, keys=()))
    trust = trust_spec(settings.signing_keys, settings.tokens, settings.files, {})
    if trust.keys or trust.issuers:
        notes.append(f"signatures are verified with the keys in {config_path}, as they are here and now")
    _note_fetched_keys(settings, notes)
    return replace(spec, trust=trust)


def _note_fetched_keys(settings: Settings, notes: list[str]) -> None:
    fetched = [name for name, issuer in settings.tokens.items() if issuer.jwks_url is not None]
    if fetched:
        notes.append(
            f"the keys of {', '.join(fetched)} are fetched by the router alone: say what a token has by --claim"
        )


def _without_unknown_signatures(spec: SnapshotSpec, notes: list[str]) -> SnapshotSpec:
    if spec.trust.keys or not any(_is_signed(one) for service in spec.services for one in service.identity):
        return spec
    notes.append("signed cookies are taken as they are: there is no key to verify them with")
    return replace(
        spec,
        services=tuple(
            replace(service, identity=tuple(_unsigned(one) for one in service.identity)) for service in spec.services
        ),
    )


def _is_signed(source: IdentitySpec) -> bool:
    return source.cookie is not None and source.cookie.is_signed


def _unsigned(source: IdentitySpec) -> IdentitySpec:
    if source.cookie is None:
        return source
    return replace(source, cookie=replace(source.cookie, is_signed=False))
