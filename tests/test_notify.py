"""Notices of a rollout, at real addresses: what they say, in order, tried again, and that nobody waits for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from aiohttp import web

from router.control.notify import MOST_WAITING, Notifier, as_json, as_slack
from router.rollout.plan import Guardrail, Notify, Plan, Step
from router.rollout.progress import Event
from tests.redis_fixture import Diary
from tests.troubles import black_hole
from tests.waiting import until

PLAN: Final = Plan("shop", "v1", "v2", (Step("canary", True, 100),), (Guardrail("errors", "errors"),))
EVENT: Final = Event(
    1_764_061_200.25, 7, "transition", "proving", "paused", "p99 <slower> & so on", "alice", "looks odd"
)


@dataclass
class Channel:
    """Somebody who listens; ``statuses`` are its next answers, then 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    got: list[dict[str, Any]] = field(default_factory=list)
    refused: int = 0

    async def handle(self, request: web.Request) -> web.Response:
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.got.append(await request.json())
        else:
            self.refused += 1
        return web.Response(status=status)

    @property
    def messages(self) -> list[str]:
        return [one["eventMessage"] for one in self.got]


@asynccontextmanager
async def channel(*statuses: int) -> AsyncIterator[Channel]:
    made = Channel(statuses=list(statuses))
    app = web.Application()
    app.router.add_post("/hook/secret", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook/secret"
    try:
        yield made
    finally:
        await runner.cleanup()


@asynccontextmanager
async def notifier(diary: Diary | None = None, **seconds: float) -> AsyncIterator[Notifier]:
    made = Notifier(**{"retry_seconds": 0.01, **seconds}, log=diary or Diary())
    await made.start()
    try:
        yield made
    finally:
        await made.stop(within=0)


def plan(*notify: Notify) -> Plan:
    return replace(PLAN, notify=notify)


def event(number: int) -> Event:
    return replace(EVENT, sentence=f"number {number}")


def test_machines_get_every_word_of_it() -> None:
    assert as_json(PLAN, EVENT) == {
        "service": "shop",
        "phase": "paused",
        "eventType": "Warning",
        "eventMessage": "p99 <slower> & so on",
        "timestamp": 1_764_061_200_250,
        "metadata": {
            "candidate": "v2", "stable": "v1", "mode": "enforce", "kind": "transition", "before": "proving", "tick": 7,
            "actor": "alice", "reason": "looks odd",
        },
    }  # fmt: skip
    assert as_json(PLAN, replace(EVENT, after="proving"))["eventType"] == "Normal"


def test_people_get_a_line_that_slack_shows_as_it_is() -> None:
    assert as_slack(PLAN, EVENT) == {"text": "shop v2: p99 &lt;slower&gt; &amp; so on (alice: looks odd)"}
    assert as_slack(PLAN, replace(EVENT, sentence="proven", actor="", reason="")) == {"text": "shop v2: proven"}


async def test_each_address_gets_what_it_wants_in_its_form() -> None:
    async with channel() as machine, channel() as people, notifier() as told:
        wanted = plan(Notify(machine.url, "json", ("command", "verdict")), Notify(people.url, "slack"))
        told.say(wanted, EVENT)
        told.say(wanted, replace(EVENT, kind="command", sentence="resume"))
        await until(lambda: told.sent == 2)
        assert machine.messages == ["resume"]
        assert [one["text"][:8] for one in people.got] == ["shop v2:"]


async def test_what_is_said_before_the_start_is_sent_then() -> None:
    async with channel() as machine:
        told = Notifier(log=Diary())
        told.say(plan(Notify(machine.url)), EVENT)
        await told.start()
        await told.stop()
        assert machine.messages == [EVENT.sentence]


async def test_they_come_in_order_however_often_it_takes() -> None:
    async with channel(500, 503, 429) as machine, notifier() as told:
        for number in range(5):
            told.say(plan(Notify(machine.url)), event(number))
        await until(lambda: told.sent == 5)
        assert machine.messages == [f"number {number}" for number in range(5)]
        assert (machine.refused, told.dropped) == (3, 0)


async def test_what_will_not_be_taken_is_dropped_and_the_next_one_has_its_turn() -> None:
    diary = Diary()
    async with channel(404, 302) as machine, notifier(diary) as told:
        for number in range(3):
            told.say(plan(Notify(machine.url)), event(number))
        await until(lambda: told.sent == 1)
        assert machine.messages == ["number 2"]
        assert told.dropped == 2
        assert diary.count("a notice for 127.0.0.1 was dropped (it answers 404)") == 1
        assert diary.count("dropped") == 1
        assert diary.has("notices arrive at 127.0.0.1 again")
        assert not diary.has("secret")


async def test_one_that_is_away_for_too_long_loses_what_it_missed() -> None:
    diary = Diary()
    async with notifier(diary, give_up_seconds=0.05) as told:
        told.say(plan(Notify("http://127.0.0.1:1/secret")), EVENT)
        await until(lambda: told.dropped == 1)
        assert not diary.has("secret")


async def test_a_queue_has_an_end_and_nobody_waits_for_one_that_hangs() -> None:
    diary = Diary()
    with black_hole() as port:
        async with channel() as machine, notifier(diary) as told:
            both = plan(Notify(f"http://127.0.0.1:{port}/"), Notify(machine.url))
            for number in range(MOST_WAITING + 3):
                told.say(both, event(number))
            assert told.dropped == 6  # of each address three: none has had its turn yet
            await until(lambda: told.sent == MOST_WAITING)
            assert machine.messages == [f"number {number}" for number in range(MOST_WAITING)]
            assert diary.count(f"{MOST_WAITING} events wait for it") == 2
