"""``checks:`` of a plan, key by key."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from router.config.model import Count, Long, Model, Rate
from router.rollout.guardrail_keys import Factor, Level
from router.rollout.plan import GROSS, Breaker, Checks, Fast
from router.rollout.statistics.two_ring import Margin


def _off(value: object) -> object:
    if value is None:
        raise ValueError("it is empty: write off to do without this check, or leave the key out")
    return None if value is False or value == "off" else value


class SrmKeys(Model):
    alpha: Level = Field(default=0.001, description="Chance of a false alarm.")
    tolerance: Rate = Field(default=Checks().srm_tolerance, description="Of a ring's share, that is let pass.")
    action: Literal["pause"] = "pause"


class NoTrafficKeys(Model):
    grace: Long = Field(default=600.0, description="How long the candidate may be without any.")
    action: Literal["pause"] = "pause"


class NoDataKeys(Model):
    grace: Long = Field(default=180.0, description="How long figures may be missing.")
    action: Literal["pause"] = "pause"
    min_instances_reporting: Rate = Field(default=0.9, description="Of the live ones, before a tick counts.")


class BreakerKeys(Model):
    errors: Rate = Field(default=Breaker().errors, description="Of the candidate's requests.")
    window: Long = Field(default=Breaker().window, description="In which they are counted.")
    min_requests: Count = Field(default=Breaker().min_requests, description="In the window.")
    min_slices: Annotated[int, Field(strict=True, ge=1, le=64)] = Field(
        default=Breaker().min_slices, description="Of 64 slices of users, that failures have to come from."
    )
    action: Literal["rollback"] = "rollback"
    local: Literal[True] = Field(default=True, description="Proxies break on their own too; see `breaker:`.")

    def part(self) -> Breaker:
        return Breaker(self.errors, self.window, self.min_requests, self.min_slices)


class FastKeys(Model):
    ratio: Factor = Field(default=GROSS.ratio, description="Times the control's rate of errors.")
    absolute: Rate = Field(default=GROSS.absolute, alias="abs", description="On top of that.")
    alpha: Level = Field(default=Fast().alpha, description="Chance of a false alarm.")
    min_slices: Annotated[int, Field(strict=True, ge=1, le=64)] = Field(
        default=Fast().min_slices, description="Of 64 slices of users, that failures have to come from."
    )
    action: Literal["rollback"] = "rollback"

    def part(self) -> Fast:
        return Fast(Margin(self.ratio, self.absolute), self.alpha, self.min_slices)


class AaKeys(Model):
    slices: Literal[64] = 64
    max_alarms: Annotated[int, Field(strict=True, ge=0, le=64)] = Field(
        default=2, description="With more a guardrail may only pause."
    )
    action: Literal["demote"] = "demote"


OrOff = BeforeValidator(_off)


class ChecksKeys(Model):
    srm: Annotated[SrmKeys | None, OrOff] = Field(default=SrmKeys(), description="Whether users arrive as weighed.")
    no_traffic: Annotated[NoTrafficKeys | None, OrOff] = Field(default=NoTrafficKeys(), description="Whether they do.")
    no_data: Annotated[NoDataKeys | None, OrOff] = Field(default=NoDataKeys(), description="Whether figures come.")
    breaker: Annotated[BreakerKeys | None, OrOff] = Field(default=BreakerKeys(), description="Mass failure.")
    fast: Annotated[FastKeys | None, OrOff] = Field(default=FastKeys(), description="Gross harm, by requests.")
    aa: Annotated[AaKeys | None, OrOff] = Field(default=AaKeys(), description="Whether guardrails are calibrated.")

    def part(self) -> Checks:
        return Checks(
            srm_alpha=self.srm.alpha if self.srm else None,
            srm_tolerance=self.srm.tolerance if self.srm else Checks().srm_tolerance,
            no_traffic_grace=self.no_traffic.grace if self.no_traffic else None,
            no_data_grace=self.no_data.grace if self.no_data else None,
            min_reporting=self.no_data.min_instances_reporting if self.no_data else Checks().min_reporting,
            breaker=self.breaker.part() if self.breaker else None,
            fast=self.fast.part() if self.fast else None,
            aa_most_alarms=self.aa.max_alarms if self.aa else None,
        )
