"""The keys of a plan: what each may be, what it means, and which part of a ``Plan`` it becomes.

One value at a time; what only several together can get wrong is in ``rollout.document``.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field

from router.config.model import Clock, Count, Long, LongOrNone, Model, Percent, RingName, Text
from router.config.problems import did_you_mean
from router.config.values import check_http_url
from router.rollout.check_keys import ChecksKeys
from router.rollout.guardrail_keys import GuardrailKeys, MarginKeys, default_guardrails
from router.rollout.plan import (
    DAYS,
    Applies,
    Approval,
    Days,
    Dependency,
    Notify,
    OnDeadline,
    OnManualEdit,
    Plan,
    RiskBudget,
    Step,
    Window,
)

FINAL_BAKE: Final = 86_400.0


def _zone(value: str) -> str:
    if value != "UTC":
        try:
            ZoneInfo(value)
        except (OSError, ValueError, KeyError):
            hint = did_you_mean(value, available_timezones()) or "a name such as Europe/Berlin"
            raise ValueError(f"there is no time zone {value!r}: {hint}") from None
    return value


def _url_or_nothing(value: str) -> str:
    return check_http_url(value) if value else value


class ApprovalKeys(Model):
    count: Annotated[int, Field(strict=True, ge=1, le=10)] = Field(default=1, description="How many people.")
    expires: Long = Field(default=Approval().expires, description="How long a yes counts.")

    def part(self) -> Approval:
        return Approval(self.count, self.expires)


class StepKeys(Model):
    ring: RingName = Field(description="The ring that this step widens or promotes.")
    version: RingName | None = Field(default=None, description="The candidate: the ring runs it from here on.")
    weight: Percent | None = Field(default=None, description="Percent; absent: as it is.")
    holdback: Percent | None = Field(default=None, description="Percent of the ring's users; absent: as it is.")
    bake: LongOrNone = Field(default=Step("").bake, description="At least so long.")
    final_bake: LongOrNone = Field(default=FINAL_BAKE, description="Of the default ring's step, instead of bake.")
    min_users: Count = Field(default=Step("").min_users, description="At least so many, on each side.")
    deadline: Long | None = Field(default=None, description="Then on_deadline says what happens; absent: none.")
    margin: MarginKeys | None = Field(default=None, description="Of the proof of errors; absent: the guardrail's.")
    approval: ApprovalKeys | None = Field(default=None, description="Who has to say yes before the next step.")

    def part(self, *, is_final: bool) -> Step:
        return Step(
            ring=self.ring,
            promotes=self.version is not None,
            weight=self.weight,
            holdback=self.holdback,
            bake=self.final_bake if is_final else self.bake,
            min_users=0 if is_final else self.min_users,
            deadline=self.deadline,
            margin=self.margin.part() if self.margin else None,
            approval=self.approval.part() if self.approval else None,
            is_final=is_final,
        )


class ExpansionKeys(Model):
    strategy: Literal["steps", "risk_budget"] = Field(default="steps", description="Who chooses the weights.")
    budget_users: Count = Field(default=RiskBudget().users, description="That may be hurt unnoticed, per bake.")
    min_step: Percent = Field(default=RiskBudget().min_step, description="Percent that a widening is worth.")
    max_factor: Annotated[float, Field(strict=True, gt=1, le=100)] = Field(
        default=RiskBudget().max_factor, description="Times the present weight, at the most."
    )

    def part(self) -> RiskBudget | None:
        is_steps = self.strategy == "steps"
        return None if is_steps else RiskBudget(self.budget_users, self.min_step, self.max_factor)


class RollbackKeys(Model):
    cooldown: LongOrNone = Field(default=3600.0, description="Before the same candidate may be tried again.")
    forward_only: bool = Field(default=False, strict=True, description="Harm pauses instead of going back.")
    after_success: LongOrNone = Field(default=7 * 86400.0, description="How long one can still go back.")


class DenyKeys(Model):
    days: Annotated[tuple[Days, ...], Field(min_length=1)] = Field(default=DAYS, description="mon to sun.")
    begin: Clock = Field(default=0, alias="from", description="HH:MM.")
    end: Clock = Field(default=24 * 60, alias="to", description="HH:MM; not after from: of the next day.")


class WindowKeys(Model):
    deny: DenyKeys = Field(description="The days and times at which it stands still.")
    tz: Annotated[str, AfterValidator(_zone)] = Field(default="UTC", description="Such as Europe/Berlin.")
    applies: Annotated[tuple[Applies, ...], Field(min_length=1)] = Field(
        default=("start", "expand"), description="To what; never to going back."
    )

    def part(self) -> Window:
        return Window(self.deny.days, self.deny.begin, self.deny.end, self.tz, self.applies)


class DependencyKeys(Model):
    service: Text = Field(description="Another service.")
    version: RingName = Field(description="What its ring has to run.")
    ring: RingName = Field(description="One of its rings.")
    on_lost: Literal["pause"] = "pause"

    def part(self) -> Dependency:
        return Dependency(self.service, self.version, self.ring)


class NotifyKeys(Model):
    webhook: Annotated[str, AfterValidator(_url_or_nothing)] = Field(description="A URL; empty: nobody is told.")
    form: Literal["json", "slack"] | None = Field(
        default=None, description="absent: slack for hooks.slack.com, else json."
    )
    events: Annotated[tuple[Literal["transition", "verdict", "override", "command", "leader"], ...], Field()] = Field(
        default=("transition", "verdict", "override"), description="Which are told."
    )

    def part(self) -> Notify:
        is_slack = (urlsplit(self.webhook).hostname or "") == "hooks.slack.com"
        return Notify(self.webhook, self.form or ("slack" if is_slack else "json"), self.events)


class PlanKeys(Model):
    """One service's rollout."""

    stable: RingName = Field(description="The version that is gone back to.")
    candidate: RingName = Field(description="The version that is walked outward.")
    mode: Literal["enforce", "observe"] = Field(default="enforce", description="observe: says all and writes nothing.")
    steps: Annotated[tuple[StepKeys, ...], Field(min_length=1, max_length=100)] = Field(
        description="Rings to widen or promote, inner to outer."
    )
    guardrails: Annotated[tuple[GuardrailKeys, ...], Field(min_length=1, max_length=20)] = Field(
        default=default_guardrails(), description="What must not become worse; absent: errors, p99, p50, http_4xx."
    )
    checks: ChecksKeys = Field(default=ChecksKeys(), description="What makes figures trustworthy, or needless.")
    tick: Long = Field(default=10.0, description="How often evidence is weighed.")
    window: Long = Field(default=600.0, description="How long each user is watched before they count, once.")
    restart: Long = Field(default=1800.0, description="Between delayed starts of the tests for harm.")
    copies: Annotated[int, Field(strict=True, ge=1, le=64)] = Field(
        default=16, description="Of each test for harm, at the most."
    )
    shift_timeout: Long = Field(default=60.0, description="How long a step waits for instances to apply it.")
    expansion: ExpansionKeys = Field(default=ExpansionKeys(), description="Who chooses the weights.")
    on_deadline: OnDeadline = Field(default="pause", description="When a step's proof is not there in time.")
    on_manual_edit: OnManualEdit = Field(default="pause", description="When somebody changes weights meanwhile.")
    rollback: RollbackKeys = Field(default=RollbackKeys(), description="How it goes back.")
    windows: tuple[WindowKeys, ...] = Field(default=(), description="When it stands still.")
    depends_on: tuple[DependencyKeys, ...] = Field(default=(), description="What other services have to run.")
    notify: tuple[NotifyKeys, ...] = Field(default=(), description="Who is told.")

    def plan(self, service: str, default_ring: str) -> Plan:
        """The whole of it; a last step of the default ring is final."""
        last = len(self.steps) - 1
        return Plan(
            service=service,
            stable=self.stable,
            candidate=self.candidate,
            steps=tuple(
                step.part(is_final=place == last and step.ring == default_ring) for place, step in enumerate(self.steps)
            ),
            guardrails=tuple(one.part() for one in self.guardrails),
            mode=self.mode,
            checks=self.checks.part(),
            tick=self.tick,
            window=self.window,
            restart=self.restart,
            copies=self.copies,
            shift_seconds=self.shift_timeout,
            budget=self.expansion.part(),
            on_deadline=self.on_deadline,
            on_manual_edit=self.on_manual_edit,
            cooldown=self.rollback.cooldown,
            forward_only=self.rollback.forward_only,
            after_success=self.rollback.after_success,
            windows=tuple(one.part() for one in self.windows),
            depends_on=tuple(one.part() for one in self.depends_on),
            notify=tuple(one.part() for one in self.notify if one.webhook),
        )


class RolloutsKeys(Model):
    """The whole document."""

    rollouts: dict[str, PlanKeys] = Field(description="Each service's plan.")
