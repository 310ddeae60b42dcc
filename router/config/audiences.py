"""Audiences: what of a request a rule looks at, how it is compared, and the same as plain conditions.

Everything that can be wrong with a rule is found here, when the config is read: a rule that reaches a worker compiles.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from router.config.files import Files
from router.config.identity import CookieName, HeaderName, QueryName, exactly_one
from router.config.model import Model, Percent, Text
from router.config.values import check_network
from router.core.hashing import BUCKETS
from router.core.spec import Comparison, ConditionKind, ConditionSpec

Lists = Mapping[str, str]
"""A file of keys (its absolute path) → the member table that was made of it."""
NO_LISTS: Final[Lists] = {}
NO_FILES: Final = Files()
_REQUIREMENT: Final = re.compile(
    r"(?:>=|<=|>|<|=|!=)?v?[0-9]{1,9}(?:\.[0-9]{1,9}){0,2}(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?"
)
_OPERATOR: Final = re.compile(r"(>=|<=|>|<|=|!=)\s+")


def check_regex(value: str) -> str:
    """A pattern of RE2, which takes time in proportion to the text whatever the pattern."""
    try:
        import re2
    except ImportError:
        raise ValueError(
            "regular expressions need the extra re2: pip install 'ring-router[re2]'; or use prefix, contains or glob"
        ) from None
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(value, options)
    except re2.error as error:
        why = error.args[0] if error.args else error
        said = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        remedy = "RE2 has neither look-around nor back-references (github.com/google/re2/wiki/Syntax)"
        raise ValueError(f"this regular expression does not compile: {said}; {remedy}") from None
    return value


def check_semver(value: str) -> str:
    """Requirements that all hold, with spaces or commas between them: ``>=5.2 <6``."""
    wanted = _requirements(value)
    wrong = next((one for one in wanted if not _REQUIREMENT.fullmatch(one)), None)
    if not wanted or wrong is not None:
        remedy = '>=, >, <=, <, = or != and numbers, such as ">=5.2 <6"'
        raise ValueError(f"{wrong or value!r} is not a requirement of a version: {remedy}")
    return value


def _requirements(value: str) -> tuple[str, ...]:
    return tuple(_OPERATOR.sub(r"\1", value).replace(",", " ").split())


def check_moment(value: str) -> str:
    """A moment by RFC 3339, with its offset from UTC."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or "T" not in value.upper() or len(value) < len("2026-12-01T09:00Z"):
        raise ValueError(f"{value!r} is not a time such as 2026-12-01T09:00:00+01:00 (RFC 3339)")
    if moment.tzinfo is None:
        raise ValueError(f"{value} says nothing of its time zone: write {value}Z for UTC, or e.g. {value}+01:00")
    return value


Moment = Annotated[str, AfterValidator(check_moment)]
_COMPARISONS: Final[tuple[Comparison, ...]] = (
    "equals", "prefix", "suffix", "contains", "one_of", "present", "glob", "regex", "semver",
)  # fmt: skip


class _Comparison(Model):
    names: ClassVar[tuple[str, ...]] = _COMPARISONS

    equals: str | None = Field(default=None, description="The whole value, exact in case.")
    prefix: Text | None = Field(default=None, description="What the value begins with.")
    suffix: Text | None = Field(default=None, description="What the value ends with.")
    contains: Text | None = Field(default=None, description="What stands anywhere in the value.")
    one_of: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None, description="One of several whole values."
    )
    present: Literal[True] | None = Field(default=None, description="true: it is there, whatever its value.")
    glob: Text | None = Field(
        default=None, description="The whole value, where * stands for any characters and ? for one."
    )
    regex: Annotated[Text, AfterValidator(check_regex)] | None = Field(
        default=None, description="A regular expression of RE2 for the whole value; needs the extra re2."
    )
    semver: Annotated[Text, AfterValidator(check_semver)] | None = Field(
        default=None, description='The value is a version, and all of this holds: ">=5.2 <6".'
    )
    inverted: StrictBool = Field(
        default=False, description="Holds when the comparison does not; also when there is no value."
    )

    @model_validator(mode="after")
    def _one(self) -> _Comparison:
        exactly_one(self, self.names, "a comparison")
        return self

    @property
    def compare(self) -> Comparison:
        return next(name for name in _COMPARISONS if getattr(self, name) is not None)

    @property
    def values(self) -> tuple[str, ...]:
        match self.compare:
            case "present":
                return ()
            case "semver":
                return _requirements(self.semver or "")
            case compare:
                value: str | tuple[str, ...] = getattr(self, compare)
                return (value,) if isinstance(value, str) else value

    def spec(self, kind: ConditionKind, name: str = "") -> ConditionSpec:
        return ConditionSpec(kind, name, self.compare, self.values, self.inverted)


class HeaderComparison(_Comparison):
    """A comparison of one request header."""

    name: HeaderName = Field(description="The header's name; upper and lower case are the same.")


class CookieComparison(_Comparison):
    """A comparison of one cookie."""

    name: CookieName = Field(description="The cookie's name, exact in case.")


class QueryComparison(_Comparison):
    """A comparison of one parameter behind the ``?``."""

    name: QueryName = Field(description="The parameter's name, exact in case.")


class ClaimComparison(_Comparison):
    """A comparison of one claim of a verified token; of a list of values any may hold."""

    name: Text = Field(description="The claim's name; one inside of another with a dot: realm_access.roles.")


class _Always(_Comparison):
    """A comparison of what every request has."""

    @model_validator(mode="after")
    def _not_present(self) -> _Always:
        if self.present:
            raise PydanticCustomError("choice", "every request has one: `present` says nothing here, compare its value")
        return self


class PathComparison(_Always):
    """A comparison of the path, without its query."""

    @model_validator(mode="after")
    def _slash(self) -> PathComparison:
        for value in self.values if self.compare in ("equals", "one_of", "prefix") else ():
            if not value.startswith("/"):
                raise PydanticCustomError("choice", f"a path begins with a slash: /{value}")
            if "?" in value:
                raise PydanticCustomError("choice", "the path is what stands before the `?`: use `query:` for the rest")
        return self


class MethodComparison(_Always):
    """A comparison of the method."""

    @model_validator(mode="after")
    def _capitals(self) -> MethodComparison:
        for value in self.values if self.compare in ("equals", "one_of") else ():
            if value != value.upper():
                raise PydanticCustomError("choice", f"a method is written in capitals: {value.upper()}")
        return self


class HostComparison(_Always):
    """A comparison of the host, in lower case and without its port."""

    @model_validator(mode="after")
    def _bare(self) -> HostComparison:
        for value in (
            self.values if self.compare in ("equals", "one_of", "prefix", "suffix", "contains", "glob") else ()
        ):
            if value != value.lower():
                raise PydanticCustomError("choice", f"hosts are compared in lower case: write {value.lower()}")
            if "/" in value or (self.compare in ("equals", "one_of") and re.search(r"[^:\]]:[0-9]+\Z", value)):
                raise PydanticCustomError("choice", "a host is a name alone, without scheme, port and path")
        return self


class UserComparison(_Comparison):
    """A comparison of the user's key, or a look into a file of keys."""

    names: ClassVar[tuple[str, ...]] = (*_COMPARISONS, "in_file")

    in_file: Text | None = Field(
        default=None, description="A text file with one key a line; lines that begin with # do not count."
    )

    def user_spec(self, files: Files, lists: Lists) -> ConditionSpec:
        """A file of keys becomes a look into its table.

        Where no table was made of it (yet), its keys stand in the condition themselves as long as they are few
        (``files.FEW_KEYS``); a longer list has nobody until its table is there.
        """
        if self.in_file is None:
            return self.spec("user")
        table = lists.get(files.found.get(self.in_file, self.in_file))
        if table is not None:
            return ConditionSpec("user", "", "listed", (table,), self.inverted)
        return ConditionSpec("user", "", "one_of", files.lists.get(self.in_file, ()), self.inverted)


class TimeWindow(Model):
    """From a moment on, until another; either may be left out."""

    from_: Moment | None = Field(default=None, alias="from", description="The first moment, such as 2026-12-01T09:00Z.")
    until: Moment | None = Field(default=None, description="The first moment at which it is over.")

    @model_validator(mode="after")
    def _order(self) -> TimeWindow:
        if self.from_ is None and self.until is None:
            raise PydanticCustomError("choice", "a time has `from`, `until`, or both")
        if self.from_ and self.until and datetime.fromisoformat(self.from_) >= datetime.fromisoformat(self.until):
            raise PydanticCustomError("choice", "this time is over before it begins: `until` comes after `from`")
        return self


def _networks(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _networks_schema(schema: dict[str, Any]) -> None:
    schema["anyOf"].insert(0, {"type": "string"})


Networks = Annotated[
    tuple[Annotated[str, AfterValidator(check_network)], ...], Field(min_length=1), BeforeValidator(_networks)
]
_LOOKS: Final = (
    "header", "cookie", "query", "path", "method", "host", "client", "claim", "user", "time",
    "all_of", "any_of", "not_",
)  # fmt: skip


class Entry(Model):
    """One way into an audience: all of the keys that are given hold."""

    header: HeaderComparison | None = Field(default=None, description="A header compares so.")
    cookie: CookieComparison | None = Field(default=None, description="A cookie compares so.")
    query: QueryComparison | None = Field(default=None, description="A query parameter compares so.")
    path: PathComparison | None = Field(default=None, description="The path compares so.")
    method: MethodComparison | None = Field(default=None, description="The method compares so.")
    host: HostComparison | None = Field(default=None, description="The host compares so.")
    client: Networks | None = Field(
        default=None,
        json_schema_extra=_networks_schema,
        description="The client's address is in one of these networks (CIDR).",
    )
    claim: ClaimComparison | None = Field(default=None, description="A claim of a verified token compares so.")
    user: UserComparison | None = Field(default=None, description="The user's key compares so, or is in a file.")
    time: TimeWindow | None = Field(default=None, description="It is now between these moments.")
    all_of: Annotated[tuple[Entry, ...], Field(min_length=1)] | None = Field(
        default=None, description="All of these hold."
    )
    any_of: Annotated[tuple[Entry, ...], Field(min_length=1)] | None = Field(
        default=None, description="One of these holds."
    )
    not_: Entry | None = Field(default=None, alias="not", description="This does not hold.")
    percent: Annotated[Percent, Field(gt=0)] | None = Field(
        default=None, description="Of the users for whom the rest of the entry holds, only so many, by their hash."
    )

    @model_validator(mode="after")
    def _some(self) -> Entry:
        if all(getattr(self, name) is None for name in _LOOKS):
            if self.percent is not None:
                why = "`percent` is a share of those for whom something holds: add what it is"
                raise PydanticCustomError("choice", f"{why}; for a share of everybody use the ring's `weight`")
            known = ", ".join(name.rstrip("_") for name in _LOOKS)
            raise PydanticCustomError("choice", f"an audience entry has one or more of {known}")
        return self


def condition(entry: Entry, files: Files = NO_FILES, lists: Lists = NO_LISTS) -> ConditionSpec:
    """An audience entry as one rule: several keys in one entry all have to hold, for a share of the users."""
    parts: list[ConditionSpec] = []
    for kind in ("header", "cookie", "query", "claim"):
        named = getattr(entry, kind)
        if named is not None:
            parts.append(named.spec(kind, named.name))
    for kind in ("path", "method", "host"):
        compared = getattr(entry, kind)
        if compared is not None:
            parts.append(compared.spec(kind))
    if entry.client is not None:
        parts.append(ConditionSpec("client", "", "within", entry.client))
    if entry.user is not None:
        parts.append(entry.user.user_spec(files, lists))
    if entry.time is not None:
        parts.append(ConditionSpec("time", "", "within", (entry.time.from_ or "", entry.time.until or "")))
    if entry.all_of is not None:
        parts.append(ConditionSpec("all_of", children=tuple(condition(child, files, lists) for child in entry.all_of)))
    if entry.any_of is not None:
        parts.append(ConditionSpec("any_of", children=tuple(condition(child, files, lists) for child in entry.any_of)))
    if entry.not_ is not None:
        parts.append(_negated(condition(entry.not_, files, lists)))
    share = BUCKETS if entry.percent is None else entry.percent
    if len(parts) == 1 and share == BUCKETS:
        return parts[0]
    return ConditionSpec("all_of", children=tuple(parts), share=share)


def _negated(spec: ConditionSpec) -> ConditionSpec:
    if spec.share == BUCKETS:
        return replace(spec, inverted=not spec.inverted)
    return ConditionSpec("all_of", inverted=True, children=(spec,))
