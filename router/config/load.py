"""From a file to settings: everything that is wrong with it at once, each with its place, or nothing wrong at all.

Pydantic's complaints become sentences that say the remedy here, and nowhere else. Nothing is half-accepted: either all
of the file is valid or ``ConfigError`` is raised.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from router.config.document import Document, read_document
from router.config.document import Path as Place
from router.config.files import Files, digest_of, mark_of_large, named_files, read_files
from router.config.problems import ConfigError, Problem, did_you_mean, redacted_url
from router.config.records import check_records
from router.config.semantics import check_semantics
from router.config.settings import Settings
from router.config.trust import check_trust

__all__ = ["ConfigError", "Problem", "load_settings", "parse_settings", "redacted_url"]

LARGEST_BYTES: Final = 64 * 1024 * 1024
"""A config with a million listed members is 20 MB; a device file or a core dump is not a config."""

_NAME_RULES: Final = {
    "services": "a service name is made of a-z, 0-9, - and _, begins with a letter or digit, 64 characters at most",
    "": "a name is made of letters, digits, '.', '-' and '_', begins with a letter or digit, 64 characters at most",
}
_SHAPES: Final = {
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list, such as [a, b]",
    "list_type": "a list, such as [a, b]",
    "dict_type": "a mapping of `key: value` lines",
    "model_type": "a mapping of `key: value` lines",
    "model_attributes_type": "a mapping of `key: value` lines",
}


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
        _note_all(document, error.errors(include_url=False))
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


def _note_all(document: Document, errors: list[ErrorDetails]) -> None:
    meant: set[Place] = set()  # keys that stand there misspelt: to call them missing as well would be one too many
    for error in errors:
        if error["type"] == "extra_forbidden":
            *parent, key = error["loc"]
            hint = did_you_mean(str(key), allowed_keys(tuple(parent)))
            if hint:
                meant.add((*parent, hint.split("'")[1]))
            document.add_at(error["loc"], f"unknown key `{key}`", hint or _keys_hint(tuple(parent)), at_key=True)
    for error in errors:
        if error["type"] == "extra_forbidden" or error["loc"] in meant:
            continue
        if error["type"] == "too_short" and error["input"]:
            continue  # pydantic counts the valid items; the invalid ones have their own complaints
        _note(document, error)


def _keys_hint(place: Place) -> str:
    return f"the keys here are: {', '.join(sorted(allowed_keys(place)))}"


def _note(document: Document, error: ErrorDetails) -> None:
    place: Place = error["loc"]
    if place and place[-1] == "[key]":  # pydantic's way to say that the key itself is wrong
        place = place[:-1]
        rule = _NAME_RULES.get(str(place[-2]), _NAME_RULES[""])
        document.add_at(place, f"{str(place[-1])!r} cannot be a name: {rule}", at_key=True)
        return
    document.add_at(place, _sentence(document, error, place))


def _sentence(document: Document, error: ErrorDetails, place: Place) -> str:
    """One complaint of pydantic's as a sentence with its remedy."""
    key, kind, context = f"`{_spelled(place)}`", error["type"], error.get("ctx", {})
    if kind in _SHAPES:
        if error["input"] is None:
            remedy = "" if _is_required(place) else ", or leave the key out"
            return f"{key} is empty: it must be {_SHAPES[kind]}{remedy}"
        if kind == "string_type" and place[-1:] == ("secret",):
            return f"{key} must be text: put it in quotes"
        if kind == "string_type" and place in document.texts:
            return f'{key} must be text: put it in quotes, "{document.texts[place]}"'
        return f"{key} must be {_SHAPES[kind]}"
    match kind:
        case "missing":
            return f"{key} is missing: {_description(place)}"
        case "value_error":
            return f"{key}: {context.get('error', error['msg'])}"
        case "choice":
            return error["msg"]
        case "literal_error":
            return f"{key} must be {context.get('expected', '')}".replace("'", "").replace("True", "true")
        case "string_pattern_mismatch":
            return f"{error['input']!r} cannot be a name: {_NAME_RULES['']}"
        case "string_too_short":
            return f"{key} must not be empty text"
        case "too_short":
            return f"{key} must not be empty: {_description(place)}"
        case _:
            return f"{key}: {error['msg']}"


def _spelled(place: Place) -> str:
    """The last name of a place, with the index where it is an item: ``members[2]``."""
    if not place:
        return "the file"
    if isinstance(place[-1], int):
        return f"{_spelled(place[:-1])}[{place[-1]}]"
    return place[-1]


def _field(place: Place) -> FieldInfo | None:
    model = _model_at(place[:-1])
    fields = model.model_fields.items() if model is not None else ()
    return next((info for name, info in fields if (info.alias or name) == place[-1]), None)


def _is_required(place: Place) -> bool:
    field = _field(place)
    return field is None or field.is_required()


def _description(place: Place) -> str:
    """What the schema says about a key, for those who left it out."""
    field = _field(place)
    if field is None or not field.description:
        return "add it"
    return field.description[0].lower() + field.description[1:].rstrip(".")


def allowed_keys(place: Place) -> list[str]:
    """The keys that the mapping at a place may have; none where the names are the user's own."""
    model = _model_at(place)
    return [] if model is None else [info.alias or name for name, info in model.model_fields.items()]


def _model_at(place: Place) -> type[BaseModel] | None:
    """Walk the settings' types along a place: fields by name, list items and free-named values by what they hold."""
    here: Any = Settings
    for step in place:
        if isinstance(here, type) and issubclass(here, BaseModel):
            fields = {info.alias or name: info.annotation for name, info in here.model_fields.items()}
            here = fields.get(str(step))
        else:
            arguments = get_args(here)
            here = arguments[1 if get_origin(here) is dict else 0] if arguments else None
        here = _bare(here)
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _bare(annotation: Any) -> Any:
    """The type inside ``Annotated[…]`` and ``… | None``."""
    while get_origin(annotation) in (Annotated, Union, UnionType):
        arguments = get_args(annotation)
        annotation = next((a for a in arguments if a is not type(None)), None)
    return annotation
