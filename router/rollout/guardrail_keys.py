"""``guardrails:`` of a plan, key by key."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from router.config.model import Long, Model, Rate, RingName, Text, Url
from router.config.values import check_header_name
from router.rollout.plan import DROP, TOLERATED, Guardrail, Latency, OnHarm, Outcome, Source
from router.rollout.statistics.two_ring import Margin

COUNTS: Final = ("n_r", "x_r", "n_b", "x_b")
_OUTCOMES: Final[dict[str, Outcome]] = {
    "errors": "errors", "http_5xx_or_transport": "errors", "http_4xx": "http_4xx", "aborts": "aborts",
}  # fmt: skip


def _counts(value: tuple[str, ...]) -> tuple[str, ...]:
    if value != COUNTS:
        raise ValueError(
            f"what comes back is [{', '.join(COUNTS)}]: units and outcomes of the ring, then of the control"
        )
    return value


def _queries(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) != len(COUNTS):
        raise ValueError(f"there are four queries, in the order {', '.join(COUNTS)}, not {len(value)}")
    return value


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        check_header_name(name)
        if re.search(r"[\x00-\x1f\x7f]", text):
            raise ValueError(f"the value of {name} has characters that a header cannot have")
    return value


Level = Annotated[float, Field(strict=True, gt=0, le=0.5)]
Factor = Annotated[float, Field(strict=True, gt=0, le=1000)]
Headers = Annotated[dict[str, str], AfterValidator(_headers)]


class MarginKeys(Model):
    ratio: Factor = Field(default=1.0, description="Times the control's rate.")
    absolute: Rate = Field(default=0.0, alias="abs", description="On top of that, such as 0.5pp.")

    def part(self) -> Margin:
        return Margin(self.ratio, self.absolute)


class LatencyKeys(Model):
    quantile: Annotated[float, Field(strict=True, ge=0.5, le=0.999)] = Field(
        default=Latency().quantile, description="Such as 0.99."
    )
    shift_buckets: Annotated[int, Field(strict=True, ge=1, le=16)] = Field(
        default=Latency().shift_buckets, description="What is tolerated: a factor of 2^(n/16)."
    )

    def part(self) -> Latency:
        return Latency(self.quantile, self.shift_buckets)


class WebhookKeys(Model):
    url: Url = Field(description="What is asked, such as https://kpi.example/orders.")
    returns: Annotated[tuple[str, ...], AfterValidator(_counts)] = Field(
        default=COUNTS, description="Always these four, cumulative."
    )
    timeout: Long = Field(default=2.0, description="Until the whole answer is there.")
    headers: Headers = Field(default={}, description="Sent along, such as Authorization.")

    def part(self) -> Source:
        return Source("webhook", self.url, (), self.timeout, tuple(self.headers.items()))


class PromqlKeys(Model):
    url: Url = Field(description="Of Prometheus, such as http://127.0.0.1:9090.")
    queries: Annotated[tuple[Text, ...], AfterValidator(_queries)] = Field(description="Four, each with one value.")
    timeout: Long = Field(default=2.0, description="Of each query.")
    headers: Headers = Field(default={}, description="Sent along, such as Authorization.")

    def part(self) -> Source:
        return Source("promql", self.url, self.queries, self.timeout, tuple(self.headers.items()))


class GuardrailKeys(Model):
    name: RingName = Field(description="What it is called, such as errors.")
    outcome: Literal["errors", "http_5xx_or_transport", "http_4xx", "aborts"] | None = Field(
        default=None, description="Of each request; errors: 5xx, or no answer."
    )
    latency: LatencyKeys | None = Field(default=None, description="A quantile that must not be slower.")
    webhook: WebhookKeys | None = Field(default=None, description="Counts of your own.")
    promql: PromqlKeys | None = Field(default=None, description="Counts of your own, from Prometheus.")
    unit: Literal["user"] = Field(default="user", description="What counts once.")
    window: Long | None = Field(default=None, description="That of the plan: all guardrails watch the same users.")
    margin: MarginKeys | None = Field(default=None, description="What is tolerated.")
    alpha: Level = Field(default=0.01, description="Chance that harm is cried falsely, in the whole rollout.")
    beta: Level = Field(default=0.05, description="Chance that a step's proof is false.")
    direction: Literal["increase", "decrease"] = Field(default="increase", description="What is worse.")
    on_harm: OnHarm = Field(default="pause", description="What happens then.")
    required: bool = Field(default=False, strict=True, description="Whether a step waits for its proof.")

    def part(self) -> Guardrail:
        own = self.webhook or self.promql
        is_lower_worse = self.direction == "decrease"
        return Guardrail(
            name=self.name,
            outcome=_OUTCOMES[self.outcome] if self.outcome else None,
            latency=self.latency.part() if self.latency else None,
            source=own.part() if own else None,
            margin=self.margin.part() if self.margin else DROP if is_lower_worse else TOLERATED,
            alpha=self.alpha,
            beta=self.beta,
            on_harm=self.on_harm,
            required=self.required,
            is_lower_worse=is_lower_worse,
        )


def default_guardrails() -> tuple[GuardrailKeys, ...]:
    """Where the plan names none."""
    return (
        GuardrailKeys(name="errors", outcome="errors", on_harm="rollback", required=True),
        GuardrailKeys(name="p99", latency=LatencyKeys(), on_harm="rollback", required=True),
        GuardrailKeys(name="p50", latency=LatencyKeys(quantile=0.5)),
        GuardrailKeys(name="http_4xx", outcome="http_4xx", margin=MarginKeys(ratio=1.25, abs="0.5pp")),  # type: ignore[arg-type]
    )
