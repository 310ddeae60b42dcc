"""From a file to settings: everything that is wrong with it at once, each with its place, or nothing wrong at all.

Nothing is half-accepted: either all of the file is valid or ``ConfigError`` is raised.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from router.config.complaints import note_all
from router.config.document import read_document
from router.config.files import Files, digest_of, mark_of_large, named_files, read_files
from router.config.problems import ConfigError, Problem, redacted_url
from router.config.records import check_records
from router.config.semantics import check_semantics
from router.config.settings import Settings
from router.config.trust import check_trust

__all__ = ["ConfigError", "Problem", "load_settings", "parse_settings", "redacted_url"]

LARGEST_BYTES: Final = 64 * 1024 * 1024
"""A config with a million listed members is 20 MB; a device file or a core dump is not a config."""


def load_settings(path: Path, env: Mapping[str, str] | None = None) -> Settings:
    """The settings of a file. Raises ``ConfigError`` with all problems; ``env`` is os.environ unless given."""
    name = str(path)
    try:
        large = mark_of_large(path)
        with path.open("rb") as file:
            raw = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise _refused(name, "there is no such file: give the config with -c FILE") from None
    except IsADirectoryError:
        raise _refused(name, "this is a directory: name the config file in it") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise _refused(name, f"the file cannot be read: {why}") from None
    if len(raw) > LARGEST_BYTES:
        raise _refused(name, f"the file is larger than {LARGEST_BYTES // 1024**2} MiB: is this a config file?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", "replace").split("\n")
        why = f"the file is not UTF-8 (byte 0x{raw[error.start]:02x}): save it as UTF-8"
        raise ConfigError((Problem(name, len(before), len(before[-1]) + 1, why),)) from None
    settings = parse_settings(text, name, env)
    settings.files.seen[name] = large or digest_of(raw)
    return settings


def parse_settings(text: str, filename: str = "<config>", env: Mapping[str, str] | None = None) -> Settings:
    """The settings of a YAML text. Raises ``ConfigError`` with all problems."""
    document = read_document(text, filename, os.environ if env is None else env)
    if document.data is None and document.problems:
        raise ConfigError(tuple(document.problems))
    if document.data is None:
        raise _refused(filename, "the file is empty: it needs at least `services:` (see config/minimal.yaml)")
    if not isinstance(document.data, dict):
        document.add_at(
            (), "the file must be a mapping of `key: value` lines, beginning with a key such as `services:`"
        )
        raise ConfigError(tuple(document.problems))
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(document.data)
    except ValidationError as error:
        note_all(document, error.errors(include_url=False), Settings)
    check_semantics(document)
    check_trust(document)
    check_records(document)
    base = Path(filename).parent
    files = read_files(document, settings, base) if settings is not None else Files()
    if document.problems or settings is None:
        problems = tuple(sorted(document.problems, key=lambda problem: (problem.line, problem.column)))
        raise ConfigError(problems, named_files(settings, base) if settings is not None else ())
    return settings.with_files(files)


def _refused(filename: str, message: str) -> ConfigError:
    return ConfigError((Problem(filename, 0, 0, message),))
