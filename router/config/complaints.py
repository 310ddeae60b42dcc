"""Pydantic's complaints as sentences that say the place and the remedy: here, and nowhere else."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from router.config.document import Document
from router.config.document import Path as Place
from router.config.problems import did_you_mean

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


def note_all(document: Document, errors: list[ErrorDetails], root: type[BaseModel]) -> None:
    """Note every complaint of a validation of the document's data by ``root``."""
    meant: set[Place] = set()  # keys that stand there misspelt: to call them missing as well would be one too many
    for error in errors:
        if error["type"] == "extra_forbidden":
            *parent, key = error["loc"]
            hint = did_you_mean(str(key), allowed_keys(tuple(parent), root))
            if hint:
                meant.add((*parent, hint.split("'")[1]))
            document.add_at(error["loc"], f"unknown key `{key}`", hint or _keys_hint(tuple(parent), root), at_key=True)
    for error in errors:
        if error["type"] == "extra_forbidden" or error["loc"] in meant:
            continue
        if error["type"] == "too_short" and error["input"]:
            continue  # pydantic counts the valid items; the invalid ones have their own complaints
        _note(document, error, root)


def _keys_hint(place: Place, root: type[BaseModel]) -> str:
    return f"the keys here are: {', '.join(sorted(allowed_keys(place, root)))}"


def _note(document: Document, error: ErrorDetails, root: type[BaseModel]) -> None:
    place: Place = error["loc"]
    if place and place[-1] == "[key]":  # pydantic's way to say that the key itself is wrong
        place = place[:-1]
        rule = _NAME_RULES.get(str(place[-2]), _NAME_RULES[""])
        document.add_at(place, f"{str(place[-1])!r} cannot be a name: {rule}", at_key=True)
        return
    document.add_at(place, _sentence(document, error, place, root))


def _sentence(document: Document, error: ErrorDetails, place: Place, root: type[BaseModel]) -> str:
    """One complaint of pydantic's as a sentence with its remedy."""
    key, kind, context = f"`{_spelled(place)}`", error["type"], error.get("ctx", {})
    if kind in _SHAPES:
        if error["input"] is None:
            remedy = "" if _is_required(place, root) else ", or leave the key out"
            return f"{key} is empty: it must be {_SHAPES[kind]}{remedy}"
        if kind == "string_type" and place[-1:] == ("secret",):
            return f"{key} must be text: put it in quotes"
        if kind == "string_type" and place in document.texts:
            return f'{key} must be text: put it in quotes, "{document.texts[place]}"'
        return f"{key} must be {_SHAPES[kind]}"
    match kind:
        case "missing":
            return f"{key} is missing: {_description(place, root)}"
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
            return f"{key} must not be empty: {_description(place, root)}"
        case _:
            return f"{key}: {error['msg']}"


def _spelled(place: Place) -> str:
    """The last name of a place, with the index where it is an item: ``members[2]``."""
    if not place:
        return "the file"
    if isinstance(place[-1], int):
        return f"{_spelled(place[:-1])}[{place[-1]}]"
    return place[-1]


def _field(place: Place, root: type[BaseModel]) -> FieldInfo | None:
    model = _model_at(place[:-1], root)
    fields = model.model_fields.items() if model is not None else ()
    return next((info for name, info in fields if (info.alias or name) == place[-1]), None)


def _is_required(place: Place, root: type[BaseModel]) -> bool:
    field = _field(place, root)
    return field is None or field.is_required()


def _description(place: Place, root: type[BaseModel]) -> str:
    """What the schema says about a key, for those who left it out."""
    field = _field(place, root)
    if field is None or not field.description:
        return "add it"
    return field.description[0].lower() + field.description[1:].rstrip(".")


def allowed_keys(place: Place, root: type[BaseModel]) -> list[str]:
    """The keys that the mapping at a place may have; none where the names are the user's own."""
    model = _model_at(place, root)
    return [] if model is None else [info.alias or name for name, info in model.model_fields.items()]


def _model_at(place: Place, root: type[BaseModel]) -> type[BaseModel] | None:
    """Walk the models' types along a place: fields by name, list items and free-named values by what they hold."""
    here: Any = root
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
