"""YAML text → plain data in which every value has its line and column.

It knows YAML and ``${VARIABLES}``, and nothing of what a config means. YAML 1.2 scalars: only true and false are
booleans, ``on`` and ``12:30:45`` are text. Mapping keys are always text. Whatever the text, it never hangs, never
recurses without bound (PyYAML's own composer dies of ``[[[[…``, so the tree is built from events here) and never
raises: what is wrong stands in ``Document.problems``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from router.config.problems import Problem

Path = tuple[str | int, ...]
Plain = Any
"""dict, list, str, int, float, bool or None."""

MAX_DEPTH: Final = 40
"""A config is nine levels deep; audience groups may nest. Far below Python's own limit."""
MAX_COPIES: Final = 100_000
"""Values that aliases may add to those in the text: a shared list of members, yes; a "billion laughs", no."""

SECRET_KEYS: Final = ("signing_keys", "tokens")
"""Top-level keys with secrets below them."""
LONGEST_NUMBER: Final = 40
"""No number of a config is longer; a longer row of digits is somebody's key, and text."""

_LOADER: Final = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_LINE_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_NOT_YAML: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # YAML 1.2.2 §5.1
_INT: Final = re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,20}|0x[0-9a-fA-F]{1,16}")  # YAML 1.2.2 §10.3.2, bounded
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: Final[dict[str, bool | None]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_VARIABLE: Final = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")


@dataclass(slots=True)
class _Node:
    line: int
    column: int


@dataclass(slots=True)
class _Scalar(_Node):
    text: str
    plain: bool
    last_line: int


@dataclass(slots=True)
class _Sequence(_Node):
    items: list[_Node] = field(default_factory=list)


@dataclass(slots=True)
class _Mapping(_Node):
    pairs: list[tuple[_Node, _Node]] = field(default_factory=list)


class _Refused(Exception):
    """Valid YAML that a config may not use, and the node where it stands."""

    def __init__(self, message: str, node: _Node) -> None:
        super().__init__(message)
        self.node = node


@dataclass(slots=True)
class Document:
    """A parsed file. ``values`` and ``keys`` give (line, column), from 1, of a value and of the key it stands under."""

    filename: str
    lines: list[str]
    data: Plain = None
    values: dict[Path, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    """Numbers, booleans and nulls as they were written: ``1.10`` is not ``1.1`` when it is the name of a version."""
    variables: dict[Path, str] = field(default_factory=dict)
    """Values that the environment has a part in, and the variable's name; of several the last one."""
    broken: set[Path] = field(default_factory=set)
    """Values that have a problem already; a second complaint about one would only confuse."""
    problems: list[Problem] = field(default_factory=list)
    hidden: set[int] = field(default_factory=set)
    """Lines on which a secret may stand, whatever its key is called: they are never shown."""

    def add(self, place: tuple[int, int], message: str, hint: str = "") -> None:
        """Note a problem at a (line, column)."""
        line, column = place
        source = self.lines[line - 1] if 0 < line <= len(self.lines) and line not in self.hidden else ""
        problem = Problem(self.filename, line, column, message, hint, source)
        if problem not in self.problems:
            self.problems.append(problem)

    def add_at(self, path: Path, message: str, hint: str = "", *, at_key: bool = False) -> None:
        """Note a problem with the value (or key) at a path, or with the nearest thing around it that exists."""
        if not at_key and path in self.broken:
            return
        place = self.keys.get(path) if at_key else None
        while place is None and path:
            place = self.values.get(path)
            path = path[:-1]
        self.add(place or self.values.get((), (1, 1)), message, hint)


def read_document(text: str, filename: str, env: Mapping[str, str]) -> Document:
    """Parse YAML, put in the environment's variables, and remember where everything stands."""
    text = text.removeprefix("\ufeff")
    document = Document(filename, _LINE_BREAK.split(text))
    stray = _NOT_YAML.search(text)
    if stray is not None:
        before = _LINE_BREAK.split(text[: stray.start()])
        place = (len(before), len(before[-1]) + 1)
        document.add(place, f"the character U+{ord(stray[0]):04X} may not stand in YAML: remove it")
        return document
    try:
        root = _read_tree(text)
    except _Refused as error:
        document.add((error.node.line, error.node.column), str(error))
        return document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # libyaml reports the end of the text as the line after the last one.
        line = min(mark.line + 1, len(document.lines)) if mark else 1
        why = " ".join(part for part in (error.context, error.problem) if part)
        document.add((line, mark.column + 1 if mark else 1), f"this is not valid YAML: {why}", _yaml_hint(why))
        return document
    if root is not None:
        _Builder(document, env).build(root)
    return document


def _yaml_hint(why: str) -> str:
    if "cannot start any token" in why:
        return "indent with spaces, and put text that begins with @, ` or % in quotes"
    if "mapping values are not allowed" in why:
        return "put text that contains ': ' in quotes, and check the indentation"
    return ""


def _read_tree(text: str) -> _Node | None:
    """The one document as nodes; aliases share the node of their anchor. Raises MarkedYAMLError and _Refused."""
    anchors: dict[str, _Node] = {}
    open_nodes: list[_Sequence | _Mapping] = []
    waiting_keys: list[_Node | None] = []
    root: _Node | None = None
    for event in _events(text):
        here = _Node(event.start_mark.line + 1, event.start_mark.column + 1)
        node: _Node
        match event:
            case yaml.DocumentStartEvent() if root is not None:
                raise _Refused("only one YAML document is allowed in the file: remove what follows `---`", here)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                open_nodes.pop()
                waiting_keys.pop()
                continue
            case yaml.AliasEvent():
                node = _aliased(event.anchor or "", anchors, open_nodes, here)
            case yaml.ScalarEvent():
                end = event.end_mark
                last_line = here.line if end is None else end.line + (end.column > 0)
                node = _Scalar(here.line, here.column, event.value, event.implicit[0], last_line)
            case yaml.SequenceStartEvent():
                node = _Sequence(here.line, here.column)
            case yaml.MappingStartEvent():
                node = _Mapping(here.line, here.column)
            case _:
                continue
        if getattr(event, "tag", None) not in (None, "!"):
            raise _Refused(f"YAML tags ({event.tag}) are not supported: put what is text in quotes", here)
        if event.anchor is not None and not isinstance(event, yaml.AliasEvent):
            anchors[event.anchor] = node
        if not open_nodes:
            root = node
        elif isinstance(parent := open_nodes[-1], _Sequence):
            parent.items.append(node)
        elif (key := waiting_keys[-1]) is None:
            waiting_keys[-1] = node
        else:
            parent.pairs.append((key, node))
            waiting_keys[-1] = None
        if isinstance(node, _Sequence | _Mapping) and not isinstance(event, yaml.AliasEvent):
            open_nodes.append(node)
            waiting_keys.append(None)
            if len(open_nodes) > MAX_DEPTH:
                raise _Refused(f"nested more than {MAX_DEPTH} levels deep", here)
    return root


def _aliased(name: str, anchors: Mapping[str, _Node], open_nodes: Sequence[_Sequence | _Mapping], here: _Node) -> _Node:
    found = anchors.get(name)
    if found is None:
        raise _Refused(f"there is no anchor &{name} above this alias", here)
    if any(found is parent for parent in open_nodes):
        raise _Refused(f"the alias *{name} stands inside its own anchor", here)
    return found


def _events(text: str) -> Iterator[Any]:
    return iter(yaml.parse(text, Loader=_LOADER))


class _Builder:
    """Nodes → plain data in the document, with aliases and ``<<`` written out and variables put in."""

    def __init__(self, document: Document, env: Mapping[str, str]) -> None:
        self._document = document
        self._env = env
        self._left = MAX_COPIES + sum(
            len(line) + 1 for line in document.lines
        )  # no value is shorter than one character

    def build(self, root: _Node) -> None:
        self._hide(root)
        self._document.data = self._value(root, ())
        if self._left < 0:
            why = "the aliases (*name) in this file unfold to far too many values, or too deep: write out what you need"
            self._document.data = None
            self._document.add((root.line, root.column), why)

    def _hide(self, root: _Node) -> None:
        """Before anything can be wrong with a line: which ones must not be shown."""
        pairs = root.pairs if isinstance(root, _Mapping) else []
        waiting = [value for key, value in pairs if isinstance(key, _Scalar) and key.text in SECRET_KEYS]
        seen: set[int] = set()
        while waiting:
            node = waiting.pop()
            if id(node) in seen:  # an alias
                continue
            seen.add(id(node))
            if isinstance(node, _Mapping):
                waiting += [part for pair in node.pairs for part in pair]
            elif isinstance(node, _Sequence):
                waiting += node.items
            elif isinstance(node, _Scalar):
                self._document.hidden.update(range(node.line, max(node.line, node.last_line) + 1))

    def _value(self, node: _Node, path: Path) -> Plain:
        self._left -= 1
        if len(path) > MAX_DEPTH:
            self._left = -1
        if self._left < 0:
            return None
        self._document.values[path] = (node.line, node.column)
        match node:
            case _Scalar():
                return self._scalar(node, path)
            case _Sequence():
                return [self._value(item, (*path, i)) for i, item in enumerate(node.items)]
            case _Mapping():
                return self._mapping(node, path)
        raise AssertionError(node)

    def _mapping(self, node: _Mapping, path: Path) -> dict[str, Plain]:
        made: dict[str, Plain] = {}
        first_line: dict[str, int] = {}
        for key, value in node.pairs:
            place = (key.line, key.column)
            if not isinstance(key, _Scalar):
                self._document.add(place, "a key must be plain text, not a list or a mapping")
            elif key.text == "<<" and key.plain:
                continue
            elif key.text in first_line:
                why = f"the key `{key.text}` is here twice (first on line {first_line[key.text]}): remove one of them"
                self._document.add(place, why)
            else:
                first_line[key.text] = key.line
                self._document.keys[(*path, key.text)] = place
                made[key.text] = self._value(value, (*path, key.text))
        for source in self._merged(node):
            for key, value in source.pairs:
                if isinstance(key, _Scalar) and key.text not in made:  # the mapping's own keys win
                    self._document.keys[(*path, key.text)] = (key.line, key.column)
                    made[key.text] = self._value(value, (*path, key.text))
        return made

    def _merged(self, node: _Mapping) -> Iterator[_Mapping]:
        for key, value in node.pairs:
            if isinstance(key, _Scalar) and key.text == "<<" and key.plain:
                for source in value.items if isinstance(value, _Sequence) else [value]:
                    if isinstance(source, _Mapping):
                        yield source
                    else:
                        self._document.add((source.line, source.column), "`<<` takes a mapping, or a list of them")

    def _scalar(self, node: _Scalar, path: Path) -> Plain:
        text = self._with_variables(node, path) if "${" in node.text else node.text
        if not node.plain:
            return text
        value = _resolve(text)
        if not isinstance(value, str):
            self._document.texts[path] = text
        return value

    def _with_variables(self, node: _Scalar, path: Path) -> str:
        def value_of(found: re.Match[str]) -> str:
            if found[0] == "$${":
                return "${"
            name, default = found[1], found[2]
            if name is None:
                self._document.add((node.line, node.column), _NOT_A_VARIABLE)
                self._document.broken.add(path)
                return found[0]
            value = self._env.get(name)
            if value or (value is not None and default is None):  # `:-` covers empty as well, as in a shell
                self._document.variables[path] = name
                return value
            if default is None:
                why = f"the environment variable {name} is not set: set it, or write ${{{name}:-default}}"
                self._document.add((node.line, node.column), why)
                self._document.broken.add(path)
                return found[0]
            return str(default)

        return _VARIABLE.sub(value_of, node.text)


_NOT_A_VARIABLE: Final = "`${` must begin ${NAME} or ${NAME:-default}; write $${ for the characters themselves"


def _resolve(text: str) -> Plain:
    """A plain scalar by YAML 1.2's core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if len(text) <= LONGEST_NUMBER and _FLOAT.fullmatch(text):
        return float(text)
    return text
