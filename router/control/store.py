"""What is live, per service: composes the watcher, the parser, the last-known-good files and the status in Redis.

Without Redis it says what the disk says, without the disk what the config file says; each service knows which. It must
never change the routing because something is missing, and never let Redis or the disk hold up the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import structlog

from router.config.endpoints import unknown_drains
from router.control.disk import Rejected
from router.control.in_force import Engine, in_force
from router.control.keys import HASHES, RawService, key_of
from router.control.last_good import Keeper, load
from router.control.link import TROUBLE, BadURL, error_kind, error_text, hang_up, make_client, safe_url
from router.control.parse import Parsed, Refusal, fit, parse
from router.control.revision import rev_of
from router.control.rules import ServiceRules, say_changes, say_weights
from router.control.service import Service, Source, say_unknown
from router.control.status import StatusWriter
from router.control.watch import POLL_SECONDS, LinkState, MemberFollower
from router.control.watchers import Watchers
from router.core.live import Live
from router.core.spec import SnapshotSpec
from router.telemetry.counters import Histogram
from router.telemetry.meters import histogram_index, micros_of
from router.telemetry.tasks import end, spawn

State = Literal["live", "poll", "down", "off"]
OnChange = Callable[[Mapping[str, Live]], None]

_NOTHING: Final[Mapping[str, tuple[str, ...]]] = {}
FIRST_READ_SECONDS: Final = 0.5
"""How long a start waits for Redis, so that a healthy one begins with live values."""
SAY_AGAIN_SECONDS: Final = 10.0
"""A link that goes on failing is one line per so many seconds."""


class Store:
    """``on_change`` is called in the loop with all live values whenever one of them changes, from ``start`` on."""

    def __init__(
        self,
        url: str | None,
        rules: Mapping[str, ServiceRules],
        state_dir: Path,
        instance: str,
        on_change: OnChange,
        log: Any = None,
        members: MemberFollower | None = None,
        engine: Engine = "router",
    ) -> None:
        self._members = members
        self._engine = engine
        self._url = url
        self._instance = instance
        self._state_dir = state_dir
        self._on_change = on_change
        self._log = structlog.get_logger(__name__) if log is None else log
        self._services = {name: Service(rule) for name, rule in rules.items()}
        self._tasks: list[asyncio.Task[None]] = []
        self._watching: asyncio.Task[None] | None = None
        self._keeper = Keeper(state_dir, self._disk_trouble)
        self._status: StatusWriter | None = None
        self._status_error = ""
        self._first_read = asyncio.Event()
        self._is_started = False
        self._began_at = time.monotonic()
        self._read_at: dict[str, float] = {}
        """Service → when it was read last; those of a cluster are read apart."""
        self._said_state: State = "off"
        self._said_at: dict[State, float] = {}
        self._generation = 0
        self._warnings = _NOTHING
        self.watcher: Watchers | None = None
        self.state: State = "off" if url is None else "down"
        self.last_error = ""
        self.errors_total: Counter[str] = Counter()
        """Kind of error → how often."""
        self.rejected_total: Counter[tuple[str, str]] = Counter()
        """(service, reason) → how often; a refused content counts once, however often it is read."""
        self.poll_durations: Histogram = {}
        """Reads of Redis, as a histogram of ``telemetry.counters``."""
        self.poll_micros = 0

    def __repr__(self) -> str:
        return f"<Store {self.state} {safe_url(self._url) if self._url else 'no Redis'} {sorted(self._services)}>"

    # -- what others look at -------------------------------------------------------------------------------------------

    @property
    def live(self) -> dict[str, Live]:
        """Service → live values."""
        return {name: service.live for name, service in self._services.items()}

    @property
    def refusals(self) -> dict[str, tuple[Refusal, ...]]:
        """Service → what of Redis is not applied at this moment."""
        return {name: service.refusals for name, service in self._services.items()}

    def rev(self, service: str) -> str:
        """What Redis held when it was read last, in one word (``revision``); empty where it was not read yet."""
        known = self._services.get(service)
        return "" if known is None or known.raw is None else rev_of(known.raw)

    def source(self, service: str) -> Source:
        """Where a service's live values come from."""
        known = self._services.get(service)
        return "config" if known is None else known.source

    def is_up(self) -> bool:
        """Whether Redis answers, with pushes or without."""
        return self.state in ("live", "poll")

    @property
    def staleness_seconds(self) -> float:
        """Since the service that waits longest was read (or since the start); 0 without Redis."""
        if self._url is None:
            return 0.0
        return time.monotonic() - min((self._read_at.get(name, self._began_at) for name in self._services), default=0)

    def note_applied(self, spec: SnapshotSpec, warnings: Mapping[str, tuple[str, ...]] = _NOTHING) -> None:
        """This snapshot routes now: to be said in the status, with what it could not do of what is live.

        ``warnings``, per service, are what is wrong with it that is not the fault of what is live.
        """
        self._generation, self._warnings = spec.generation, warnings
        for routed in spec.services:
            service = self._services.get(routed.name)
            if service is None:
                continue
            unknown = unknown_drains(routed, service.live.drained)
            if unknown and unknown != service.unknown_drains:
                self._log.warning(say_unknown(unknown, routed.name), service=routed.name)
            service.unknown_drains = unknown
        self._tell()

    def notes(self, service: str) -> list[str]:
        """What of a service's live values has no effect at this moment, and what of its members is not applied."""
        known = self._services.get(service)
        if known is None:
            return []
        return [*known.notes, *(self._members.troubles(service) if self._members is not None else ())]

    def outside_rails(self, service: str) -> list[str]:
        """Rings of a service that are applied below their floor or above their ceiling, as sentences."""
        known = self._services.get(service)
        return [] if known is None else known.outside_rails

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the last known good values, start watching, and give Redis half a second to say what is live."""
        for service in self._services.values():
            self._load(service)
        self._began_at = time.monotonic()
        if self._url is not None:
            await self._ask_fellows(self._url)
            self._tasks.append(spawn(self._keeper.run(), name="last known good"))
            try:
                self._status = StatusWriter(self._url, self._instance, self.reports, self._status_failed)
            except BadURL as error:
                self._link("down", error)
            else:
                self._tasks.append(spawn(self._status.run(), name="status in Redis"))
                self._watch()
                try:
                    async with asyncio.timeout(FIRST_READ_SECONDS):
                        await self._first_read.wait()
                except TimeoutError:
                    self._log.warning(f"Redis has not answered within {FIRST_READ_SECONDS:g} s: {self._fallback()}")
        self._is_started = True

    async def _ask_fellows(self, url: str) -> None:
        """With rails, the first read is no ground to stand on: it may hold what the others have refused."""
        asking = [one for one in self._services.values() if one.source == "config" and one.rules.has_rails]
        if not asking:
            return
        try:
            client = make_client(url)
        except BadURL:
            return  # said where the status is opened
        try:
            async with asyncio.timeout(FIRST_READ_SECONDS):
                for service in asking:
                    service.fellows = await in_force(client, service.rules)
        except (TimeoutError, *TROUBLE) as error:
            names = ", ".join(one.rules.name for one in asking)
            self._log.warning(
                f"the other instances could not be asked what is in force ({error_text(error)}): the first weights "
                f"that are read for {names} are adopted, as far as ceilings allow"
            )
        finally:
            await hang_up(client)

    async def stop(self) -> None:
        """End all tasks, write what is still to be kept, leave the status."""
        tasks = [*self._tasks, *([self._watching] if self._watching else [])]
        await end(*tasks)
        await self._keeper.flush()
        if self._status is not None:
            await self._status.farewell(tuple(self._services))

    def update_rules(self, rules: Mapping[str, ServiceRules]) -> None:
        """The config file has changed. Does not call ``on_change``: the caller makes a new snapshot anyway."""
        names_before = set(self._services)
        kept = {name: service for name, service in self._services.items() if name in rules}
        self._services = {name: kept.get(name) or Service(rule) for name, rule in rules.items()}
        for name, rule in rules.items():
            service = self._services[name]
            if name not in kept:
                self._load(service)
            elif service.rules != rule:
                raw, service.rules, service.raw = service.raw, rule, None
                service.live = fit(service.live, rule)
                if raw is not None:
                    self._apply(service, raw)
        if self._is_started and self._status is not None and set(self._services) != names_before:
            self._watch()
        self._tell()

    def _watch(self) -> None:
        """Watch the services there are now; a watcher of others ends."""
        if self._watching is not None:
            spawn(end(self._watching), name="end of a Redis watcher")
        self._watching = self.watcher = None
        if self._url is not None and self._services:
            self.watcher = Watchers(
                self._url, self._services, self._read, self._link, name=self._instance, members=self._members
            )
            self._watching = spawn(self.watcher.run(), name="Redis watcher")

    def _load(self, service: Service) -> None:
        try:
            live = load(self._state_dir, service.rules)
        except Rejected as error:
            self._log.warning(f"last known good values not used: {error}", service=service.rules.name)
            return
        # Without a Redis in the config file, the file alone decides: what Redis once said is history.
        if live is not None and self._url is not None:
            service.live, service.source = live, "disk"
            self._keeper.knows(live, service.rules)

    # -- what the watcher tells ----------------------------------------------------------------------------------------

    def _read(self, raw: Mapping[str, RawService], seconds: float) -> None:
        micros = micros_of(seconds)
        index = histogram_index(micros)
        self.poll_durations[index] = self.poll_durations.get(index, 0) + 1
        self.poll_micros += micros
        self._read_at |= dict.fromkeys(raw, time.monotonic())
        has_changed = False
        for name, hashes in raw.items():
            service = self._services.get(name)
            if service is not None and (service.raw != hashes or 0 < service.again_at <= time.time()):
                has_changed |= self._apply(service, hashes)
        if self._services.keys() <= self._read_at.keys():
            self._first_read.set()
        self._say_link()
        if has_changed and self._is_started:
            try:
                self._on_change(self.live)
            except Exception as error:  # noqa: BLE001 - a fault of the listener must not look like one of the link
                self._log.error(f"live values could not be applied: {error_text(error)}", exc_info=error)

    def _link(self, state: LinkState, error: BaseException | None) -> None:
        if error is not None:
            self.last_error = error_text(error)
        if state == "down" and error is not None:
            self.errors_total[error_kind(error)] += 1
        if state == "live":
            self.last_error = ""
        if state != self.state:
            self.state = state
            self._tell()
        if self._members is not None:
            self._members.link(state)
        self._say_link(is_news=True)

    def _say_link(self, *, is_news: bool = False) -> None:
        """The first time at once, then at most one line per state and ten seconds."""
        if self.state == self._said_state and not (is_news and self.state == "down"):
            return
        now = time.monotonic()
        if now - self._said_at.get(self.state, float("-inf")) < SAY_AGAIN_SECONDS:
            return
        self._said_state, self._said_at[self.state] = self.state, now
        where = safe_url(self._url or "")
        match self.state:
            case "down":
                self._log.warning(f"Redis {where} is down ({self.last_error}): {self._fallback()}")
            case "poll":
                every = f"{POLL_SECONDS * 1000:.0f} ms"
                self._log.warning(f"Redis {where} sends no pushes ({self.last_error}): reading every {every}")
            case _:
                self._log.info(f"Redis {where} is live")

    def _fallback(self) -> str:
        words = {"config": "the config file's weights", "disk": "the last known good weights"}
        sources = {service.source for service in self._services.values()}
        return f"{' and '.join(sorted(words.get(s, 'the weights last read') for s in sources))} stay in force"

    def _apply(self, service: Service, raw: RawService) -> bool:
        """Judge a read; True when the live values are other ones now."""
        before = service.live
        parsed = parse(raw, service.rules, service.ground, time.time())
        service.raw, service.live, service.is_read = raw, parsed.live, True
        service.again_at = max((problem.until for problem in parsed.problems), default=0.0)
        self._note_refusals(service, raw, parsed)
        if parsed.is_from_redis:
            service.source = "redis"
        # A refusal has to outlive a restart: what is refused now would be adopted by whoever remembers nothing.
        if parsed.is_from_redis or (parsed.problems and service.rules.has_rails):
            self._keeper.offer(parsed.live, service.rules)
        self._tell()
        if parsed.live == before:
            return False
        self._say_applied(service, before)
        return True

    def _say_applied(self, service: Service, before: Live) -> None:
        name, after = service.rules.name, service.live
        changes = say_changes(service.rules, before, after)
        revision = f" (rev {after.revision})" if after.revision else ""
        if changes:
            self._log.info(f"applied{revision}: {'; '.join(changes)}", service=name)
        if before.revision.isdecimal() and after.revision.isdecimal() and int(after.revision) < int(before.revision):
            sentence = (
                f"rev went back from {before.revision} to {after.revision}: did Redis fail over to an older copy?"
            )
            self._log.warning(sentence, service=name)

    def _note_refusals(self, service: Service, raw: RawService, parsed: Parsed) -> None:
        name, rules = service.rules.name, service.rules
        for hash_name in HASHES:
            key, content = key_of(name, hash_name), getattr(raw, hash_name)
            problems = tuple(problem for problem in parsed.problems if problem.key == key)
            if not problems:
                if service.refused_content.pop(key, None) is not None:
                    self._log.info(f"{key} is valid again: {say_weights(rules, service.live)}", service=name)
                continue
            if not service.is_news(key, content, problems):
                continue
            for reason in {problem.reason for problem in problems}:
                self.rejected_total[name, reason] += 1
            verb = "held" if problems[0].reason == "held_missing" else "refused"
            said = " ".join(problem.message for problem in problems)
            self._log.warning(f"{verb}: {said} In force: {say_weights(rules, service.live)}", service=name)
        service.refusals = parsed.problems

    # -- what the others tell ------------------------------------------------------------------------------------------

    def _disk_trouble(self, error: OSError) -> None:
        self._log.warning(
            f"the last known good values cannot be kept in {self._state_dir} ({error.strerror or error}): a restart "
            f"while Redis is away would begin with the config file's weights. Set `state_dir` to a writable directory."
        )

    def _status_failed(self, error: BaseException) -> None:
        self.errors_total[f"status_{error_kind(error)}"] += 1
        if self.state in ("live", "poll") and error_text(error) != self._status_error:
            self._status_error = error_text(error)
            self._log.warning(f"the status cannot be written to Redis: {self._status_error}")

    def _tell(self) -> None:
        if self._status is not None:
            self._status.wake()

    def reports(self) -> dict[str, dict[str, Any]]:
        return {
            name: {
                **service.report(self._generation, self.state, self._warnings.get(name, ())),
                "members": self._members.counts(name) if self._members is not None else {},
                "notes": self.notes(name),
                "engine": self._engine,
            }
            for name, service in self._services.items()
        }
