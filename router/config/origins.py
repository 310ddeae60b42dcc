"""Which values are in force, and where each of them comes from: the file, the environment, or nobody but the default.

It works on the settings and on the text they were made of. What nobody may read leaves it as ``***``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic_core import to_jsonable_python

from router.config.document import Document, read_document
from router.config.document import Path as Place
from router.config.problems import redacted_url
from router.config.settings import Settings

HIDDEN: Final = "***"
LONGEST_LIST: Final = 20
"""Items of a list that are shown; a ring may list a million members."""
LARGEST_TEXT: Final = 1 << 20
"""A longer file is not parsed again only to say on which line something stands."""
_SECRETS: Final = frozenset({"secret", "sha256", "password", "token"})

Origin = Literal["file", "environment", "default"]


@dataclass(frozen=True, slots=True)
class Value:
    """One leaf. ``path`` has items of a list by their ``name`` where they have one: ``services.shop.rings.canary``."""

    path: str
    value: Any
    origin: Origin
    place: str
    """``router.yaml:12:9``, with ``NAME at`` before it for a variable; empty for a default."""


def values_of(settings: Settings, text: str, filename: str, env: Mapping[str, str] | None = None) -> list[Value]:
    """All leaves in the order of the schema. ``text`` empty: where they stand is not known."""
    document = Document(filename, [])
    if text and len(text) <= LARGEST_TEXT:
        document = read_document(text, filename, os.environ if env is None else env)
    plain = to_jsonable_python(settings, by_alias=True, fallback=str)
    return [
        Value(".".join(names), _shown(place, value), *_origin(document, place))
        for names, place, value in _leaves((), (), plain)
    ]


def _leaves(names: tuple[str, ...], place: Place, value: Any) -> Iterator[tuple[tuple[str, ...], Place, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves((*names, str(key)), (*place, str(key)), item)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            name = item.get("name") if isinstance(item, dict) else None
            yield from _leaves((*names, name if isinstance(name, str) else str(number)), (*place, number), item)
    else:
        yield names, place, value


def _shown(place: Place, value: Any) -> Any:
    if value and place and place[-1] in _SECRETS:
        return HIDDEN
    if isinstance(value, str):
        return redacted_url(value)
    if isinstance(value, list):
        shown = [redacted_url(item) if isinstance(item, str) else item for item in value[:LONGEST_LIST]]
        return [*shown, f"… and {len(value) - LONGEST_LIST} more"] if len(value) > LONGEST_LIST else shown
    return value


def _origin(document: Document, place: Place) -> tuple[Origin, str]:
    """A value stands in the file, or something shorter that means it does: ``listen: 0.0.0.0:80``."""
    at = place
    while at and at not in document.values:
        at = at[:-1]
    if not at or (at != place and _is_mapping(document, at)):
        return "default", ""
    line, column = document.values[at]
    where = f"{document.filename}:{line}:{column}"
    variable = document.variables.get(at)
    return ("file", where) if variable is None else ("environment", f"{variable} at {where}")


def _is_mapping(document: Document, place: Place) -> bool:
    here = document.data
    for step in place:
        here = here[step]
    return isinstance(here, dict)
