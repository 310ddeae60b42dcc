"""A rollout in the hand: the turns of its leader one by one, with whatever is to be seen, and no clock but its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from router.rollout import machine
from router.rollout.observation import Cohort, Command, How, Observation, Verb
from router.rollout.plan import Approval, Checks, Guardrail, Latency, Plan, Step
from router.rollout.progress import Event, Phase
from router.rollout.state import Routing, State
from router.rollout.statistics.two_ring import Margin

BEGAN: Final = 1_700_000_000.0
LIVE: Final = ("east", "west")
BEFORE: Final = Routing(
    {"canary": 0, "early": 0},
    {"canary": "v1", "early": "v1", "everyone": "v1"},
    {"canary": 0, "early": 0, "everyone": 0},
)
WIDE: Final = Margin(1.5, 0.05)
ERRORS: Final = Guardrail("errors", outcome="errors", margin=WIDE, on_harm="rollback", required=True)
P99: Final = Guardrail("p99", latency=Latency(0.99, 2), on_harm="rollback")
REFUSED: Final = Guardrail("http_4xx", outcome="http_4xx", margin=WIDE)
PLAN: Final = Plan(
    "shop", "v1", "v2",
    steps=(
        Step("canary", promotes=True, weight=100, bake=20.0, min_users=100),
        Step("canary", weight=500, bake=20.0, min_users=100),
        Step("early", promotes=True, weight=1000, bake=20.0, min_users=100),
        Step("everyone", promotes=True, bake=20.0, is_final=True),
    ),
    guardrails=(ERRORS, P99, REFUSED), tick=10.0, window=10.0, copies=8,
    checks=Checks(no_traffic_grace=60.0, no_data_grace=30.0),
)  # fmt: skip


def with_step(plan: Plan, number: int, **changes: Any) -> Plan:
    steps = list(plan.steps)
    steps[number] = replace(steps[number], **changes)
    return replace(plan, steps=tuple(steps))


def approved(plan: Plan = PLAN, count: int = 1) -> Plan:
    """Its first step has to be approved of."""
    return with_step(plan, 0, approval=Approval(count, 3600.0))


@dataclass
class Hand:
    """``tick`` and ``look`` are its turns; ``routed`` is what Redis would have."""

    plan: Plan = PLAN
    routed: Routing = BEFORE
    at: float = BEGAN
    written: list[Routing] = field(default_factory=list)
    state: State = field(init=False)
    wishes: int = 0

    def __post_init__(self) -> None:
        self.state = machine.begin(self.plan, "shop-1", self.at, "ada", "v2 is ready", self.routed)

    # -- what is to be seen ----------------------------------------------------------------------------------------

    def seen(self, *commands: Command, **more: Any) -> Observation:
        """Between two ticks, unless ``is_whole`` is given."""
        defaults: dict[str, Any] = {
            "tick": self.state.tick, "at": self.at, "is_whole": False, "weights": tuple(self.routed.weights.items()),
            "versions": tuple(self.routed.versions.items()), "holdbacks": tuple(self.routed.holdbacks.items()),
            "live": LIVE, "applied_at": self.at, "commands": commands,
        }  # fmt: skip
        return Observation(**{**defaults, **more})

    def cohort(self, name: str, ring: tuple[int, float], control: tuple[int, float], **more: Any) -> Cohort:
        """Users who are new to all tests."""
        known = {"stratum": "hash", "since": 1, "round": self.state.round, **more}
        return Cohort(name, ring_units=ring[0], ring_outcomes=ring[1], control_units=control[0],
                      control_outcomes=control[1], **known)  # fmt: skip

    def good(self, users: int = 1000) -> tuple[Cohort, ...]:
        """One failure in a hundred, on both sides."""
        return tuple(
            self.cohort(one.name, (users, users / 100), (10 * users, users / 10)) for one in self.plan.guardrails
        )

    def bad(self, name: str, users: int = 1000) -> tuple[Cohort, ...]:
        """Every other user of the ring is worse off."""
        return (self.cohort(name, (users, users / 2), (10 * users, users / 10)),)

    # -- turns -----------------------------------------------------------------------------------------------------

    def take(self, seen: Observation) -> Routing | None:
        self.state, routing = machine.advance(self.plan, self.state, seen)
        if routing is not None:
            self.written.append(routing)
            self.routed = Routing(*({**getattr(self.routed, one), **getattr(routing, one)}
                                    for one in ("weights", "versions", "holdbacks")))  # fmt: skip
        return routing

    def look(self, *commands: Command, after: float = 1.0, **more: Any) -> Routing | None:
        self.at += after
        return self.take(self.seen(*commands, **more))

    def tick(self, *commands: Command, **more: Any) -> Routing | None:
        """A whole tick with everyday traffic; no user's window closes in it unless ``cohorts`` are given."""
        number = int(self.at // self.plan.tick)
        self.at = (number + 1) * self.plan.tick + 0.5
        usual = {"tick": number, "is_whole": True, "ring_requests": 100, "control_requests": 1000, "reporting": 2}
        return self.take(self.seen(*commands, **{**usual, **more}))

    def wish(self, verb: Verb, how: How = "", actor: str = "ada") -> Command:
        self.wishes += 1
        return Command(f"wish-{self.wishes}", verb, actor, "because", how)

    def edit(self, weights: Mapping[str, int] | None = None, versions: Mapping[str, str] | None = None) -> None:
        """Somebody at the prompt."""
        self.routed = Routing(
            {**self.routed.weights, **(weights or {})},
            {**self.routed.versions, **(versions or {})},
            self.routed.holdbacks,
        )

    # -- where it gets to ------------------------------------------------------------------------------------------

    def reach(self, phase: Phase, step: int = 0) -> Hand:
        """All goes well until it is there, and the next tick counts."""
        for _ in range(100):
            if (self.state.phase, self.state.step) == (phase, step) and self.state.tick + 1 >= self.state.clean_tick:
                return self
            proves = (self.state.phase == "proving" and phase != "proving") or self.state.step < step
            self.tick(cohorts=self.good() if proves else ())
        raise AssertionError(f"it stays {self.state.phase} in step {self.state.step}: {self.said()}")

    def paused(self, why: str) -> Hand:
        """Baking in its first step, and then paused for that reason."""
        PAUSES[why](self.reach("baking"))
        assert (self.state.phase, self.state.why) == ("paused", why), self.said()
        return self

    @property
    def last(self) -> Event:
        return self.state.events[-1]

    def said(self) -> list[str]:
        return [f"{one.kind} {one.before} → {one.after}: {one.sentence}" for one in self.state.events]


def _manual(hand: Hand) -> None:
    hand.look(hand.wish("pause"))


def _signal(hand: Hand) -> None:
    hand.tick(cohorts=hand.bad("http_4xx"))


def _srm(hand: Hand) -> None:
    hand.tick(arrived=(2000, 1000), share=0.1)


def _no_data(hand: Hand) -> None:
    for _ in range(4):
        hand.tick(reporting=1)


def _no_traffic(hand: Hand) -> None:
    for _ in range(7):
        hand.tick(ring_requests=0)


def _dependency(hand: Hand) -> None:
    hand.tick(lost=("auth does not run v7 in everyone",))


def _override(hand: Hand) -> None:
    hand.edit({"canary": 700})
    hand.look()


def _uncalibrated(hand: Hand) -> None:
    units, outcomes = [100] * 64, [0.0] * 64
    outcomes[:3] = [100.0] * 3
    hand.tick(slices=(("errors", tuple(units), tuple(outcomes)),), cohorts=hand.bad("errors"))


PAUSES: Final[Mapping[str, Callable[[Hand], None]]] = {
    "manual": _manual, "signal": _signal, "srm": _srm, "no_data": _no_data, "no_traffic": _no_traffic,
    "dependency": _dependency, "override": _override, "uncalibrated": _uncalibrated,
}  # fmt: skip
HARM: Final[dict[str, Callable[[Hand], dict[str, Any]]]] = {
    "a guardrail": lambda hand: {"cohorts": hand.bad("errors")},
    "latency": lambda hand: {"cohorts": hand.bad("p99")},
    "the breaker": lambda _hand: {"ring_requests": 1000, "ring_errors": 900, "failing_slices": 0b111},
    "the fast lane": lambda _hand: {"ring_requests": 1000, "ring_errors": 150, "failing_slices": 0b11111},
    "a worker's own breaker": lambda _hand: {"open_breakers": 1},
}
"""What leads back, as what is to be seen in a tick."""
