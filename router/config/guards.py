"""Guard rails for people who steer live, and what becomes of open connections when they do."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from router.config.model import Model, Percent, Seconds
from router.config.problems import did_you_mean
from router.config.values import parse_duration
from router.core.spec import GuardSpec, OnChange

_WORDS: Final[tuple[OnChange, ...]] = ("keep", "close")
_FORMS: Final = "keep, close, or a time such as {drain: 30s}"

Change = tuple[OnChange, float]
"""What to do, and for ``drain`` the seconds until it is done."""
KEEP: Final[Change] = ("keep", 0.0)


def parse_change(value: object) -> Change:
    """``keep``, ``close`` or ``{drain: 30s}``."""
    if value in _WORDS:
        return value, 0.0
    if isinstance(value, dict) and list(value) == ["drain"]:
        return "drain", parse_duration(value["drain"])
    if value == "drain":
        raise ValueError("say how long open connections have: {drain: 30s}")
    given = value if isinstance(value, str) else next(iter(value), "") if isinstance(value, dict) else ""
    hint = did_you_mean(str(given), [*_WORDS, "drain"])
    raise ValueError(f"what becomes of open connections is {_FORMS}" + (f": {hint}" if hint else ""))


def _written(change: Change) -> Any:
    return {"drain": change[1]} if change[0] == "drain" else change[0]


OnRingChange = Annotated[
    Change,
    PlainValidator(parse_change),
    PlainSerializer(_written),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(_WORDS)},
                {
                    "type": "object",
                    "required": ["drain"],
                    "additionalProperties": False,
                    "properties": {"drain": {"anyOf": [{"type": "number"}, {"type": "string"}]}},
                },
            ]
        }
    ),
]


class Guard(Model):
    """What live weights may do at the most; narrowing is always allowed."""

    max_step: Annotated[Percent, Field(gt=0)] | None = Field(
        default=None, description="Percent by which a ring may be widened at a time; absent: any."
    )
    min_bake: Seconds | None = Field(
        default=None, description="How long a ring stays as it is before it is widened again; absent: not at all."
    )

    @property
    def spec(self) -> GuardSpec:
        return GuardSpec(self.max_step or 0, self.min_bake or 0.0)
