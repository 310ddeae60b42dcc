"""What all models of the config share: how strict they are, and the types of single values."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)

from router.config.values import (
    Address,
    check_http_url,
    parse_address,
    parse_bytes,
    parse_clock,
    parse_duration,
    parse_duration_or_none,
    parse_long,
    parse_long_or_none,
    parse_percent,
    parse_rate,
)

Seconds = Annotated[
    float,
    PlainValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": 86400},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h)$"},
            ]
        }
    ),
]
SecondsOrNone = Annotated[
    float,
    PlainValidator(parse_duration_or_none),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 86400},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h)$"},
            ]
        }
    ),
]
"""0 is none."""
Listen = Annotated[
    Address,
    PlainValidator(parse_address),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": r"^.+:[0-9]{1,5}$"}),
]
Bytes = Annotated[
    int,
    PlainValidator(parse_bytes),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^[0-9]+\s*(KiB|MiB|GiB|B)$"},
            ]
        }
    ),
]
"""A size; 0 is no limit."""
Text = Annotated[str, StringConstraints(min_length=1)]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)]
RingName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Rings and versions: safe in header values, Redis fields and metric labels as well."""
Percent = Annotated[
    int,
    PlainValidator(parse_percent),
    PlainSerializer(lambda points: points / 100),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 100, "multipleOf": 0.01}),
]
"""Written as percent, kept as basis points."""
Long = Annotated[float, PlainValidator(parse_long)]
LongOrNone = Annotated[float, PlainValidator(parse_long_or_none)]
"""Up to 90 days; 0 is none."""
Rate = Annotated[float, PlainValidator(parse_rate)]
"""0 to 1, written with its unit: 5%, 0.1pp."""
Clock = Annotated[int, PlainValidator(parse_clock)]
"""Minutes since midnight."""
Url = Annotated[str, AfterValidator(check_http_url)]


class Model(BaseModel):
    """Frozen, and strict about keys: a key that nobody reads is a mistake that nobody notices."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)
