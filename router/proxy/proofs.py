"""Who may say which ring a request is in: a signed pass, an override, a ring that the call chain has had so far.

A head without any of it never comes here. What does not hold is counted and then as if it had not been sent: the
request is routed by everything else. Nothing here raises because of what a client sends.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Final

from router.core.audience import CookieSpec, KeySpec, TrustSpec
from router.core.rules import cookie_value
from router.proxy.facts import is_secure
from router.proxy.forwarding import RING_PASS, cookie_line
from router.proxy.grammar import TOKEN
from router.proxy.lines import RequestLine
from router.proxy.upgrade import wants_websocket
from router.proxy.wheel import NEVER
from router.trust.passes import LONGEST, Pass, PassError, Verdict, check_pass, read_pass
from router.trust.propagation import (
    LIFETIME,
    Claim,
    check_member,
    read_baggage,
    ring_of,
    with_others,
    write_member,
)
from router.trust.tokens import Tokens

if TYPE_CHECKING:
    from router.core.hashing import UserKey
    from router.core.snapshot import Service
    from router.proxy.downstream import Downstream
    from router.proxy.heads import Carried, RequestHead
    from router.proxy.lane import Lane
    from router.proxy.plane import DataPlane

REMEMBERED: Final = 1024
"""Passes that are known to be signed, and as many that are known not to be; some 2 MiB each if they are the longest."""
UNTRUSTED: Final = Claim.UNTRUSTED.value
OFF: Final = "off"


class Verifier:
    """What a worker needs to believe anybody: keys, issuers, and what it has verified already."""

    __slots__ = (
        "_known",
        "_members",
        "_plane",
        "_refused",
        "deadline",
        "keys",
        "looked_at",
        "revoked",
        "slot",
        "tokens",
    )

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self.keys: tuple[KeySpec, ...] = ()
        self.tokens = Tokens()
        self.revoked: dict[str, frozenset[str]] = {}
        """Service → ``pass:<id>`` and ``key:<id>`` that count no more."""
        self._known: dict[bytes, Pass] = {}
        self._refused: dict[bytes, Verdict] = {}
        self._members: dict[str, bytes] = {}
        self.deadline = NEVER
        self.slot = -1
        self.looked_at = NEVER

    def install(self, trust: TrustSpec, revoked: dict[str, frozenset[str]]) -> None:
        """Take over what a snapshot says. What was verified with other keys is forgotten.

        Raises MissingLibraryError where there are issuers and no PyJWT; then nothing has changed.
        """
        self.tokens = Tokens(trust.issuers, self.tokens)
        self.revoked = revoked
        self._refused.clear()
        self._members.clear()
        if trust.keys != self.keys:
            self.keys = trust.keys
            self._known.clear()
        if self.deadline == NEVER and self.keys:
            self._renew_in(LIFETIME / 2)

    def read(self, token: bytes) -> Pass:
        """A pass whose signature holds. Raises PassError."""
        known = self._known.get(token)
        if known is not None:
            return known
        if len(token) > LONGEST:
            raise PassError(Verdict.MALFORMED)
        verdict = self._refused.get(token)
        if verdict is None:
            try:
                known = read_pass(self.keys, token.decode("latin-1"))
            except PassError as error:
                verdict = error.verdict
        if known is None:
            if len(self._refused) >= REMEMBERED:
                self._refused.clear()
            self._refused[token] = verdict or Verdict.MALFORMED
            raise PassError(verdict or Verdict.MALFORMED)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[token] = known
        return known

    def member(self, ring: str) -> bytes:
        """The member of baggage that says a ring, good for half of its lifetime at the least."""
        member = self._members.get(ring)
        if member is None:
            member = self._members[ring] = write_member(self.keys, ring, time())
        return member

    def on_deadline(self, now: float) -> None:
        """Half of the time is over: what lanes say is signed anew, so that no request has to look at the clock."""
        self._members.clear()
        for lane in self._plane.all_lanes():
            if lane.member:
                lane.carry(self.member(lane.ring))
        if self.keys:
            self._renew_in(LIFETIME / 2)

    def _renew_in(self, seconds: float) -> None:
        self.deadline = self._plane.now() + seconds
        if self.slot == -1:
            self._plane.wheel.place(self)


def take_link(head: RequestHead, carried: Carried) -> None:
    """Take passes off the query: neither the backend nor the log sees them. The first one is tried."""
    start = head.start
    path, _, query = start.target.partition(b"?")
    kept = []
    for one in query.split(b"&"):
        name, separator, value = one.partition(b"=")
        if name == RING_PASS and separator:
            carried.linked = carried.linked or value
        else:
            kept.append(one)
    head.start = RequestLine(start.method, path + b"?" + b"&".join(kept) if kept else path, is_http10=start.is_http10)
    head.lines[0] = head.start.line


def weigh(downstream: Downstream, service: Service, head: RequestHead, carried: Carried, key: UserKey | None) -> bytes:
    """Find the ring that a request may ask for.

    Returns a Set-Cookie field where a link with a pass was opened, which is answered with it; else nothing.
    """
    now = time()
    held = _held_pass(downstream, service, head, carried, key, now)
    if held is not None:
        token, found = held
        carried.held = found
        head.override = found.ring
        if token == carried.linked and head.start.method in (b"GET", b"HEAD") and not wants_websocket(head):
            spec = CookieSpec(max_age=max(1, int(found.expires_at - now)))
            return cookie_line(RING_PASS, token, spec, is_secure=is_secure(downstream, head))
    said = carried.fields.get(b"x-ring-override")
    if said is not None:
        _override(downstream, service, head, said.decode("latin-1"))
    _propagated(downstream, service, head, carried, now)
    return b""


def weigh_again(plane: DataPlane, service: Service, head: RequestHead, key: UserKey | None) -> None:
    """A pass may have ended, or been taken back, since the request came that a long connection began with."""
    held = head.carried.held if head.carried is not None else None
    if held is not None and head.override == held.ring:
        revoked = plane.verifier.revoked.get(service.spec.name, ())
        if check_pass(held, service.spec.name, revoked, _user(key), time()) is not Verdict.VALID:
            head.override = ""


def _user(key: UserKey | None) -> str:
    return "" if key is None else key.decode("utf-8", "surrogateescape")


def _held_pass(
    downstream: Downstream, service: Service, head: RequestHead, carried: Carried, key: UserKey | None, now: float
) -> tuple[bytes, Pass] | None:
    """The first pass that holds: of the field, the link, the cookie. Each that does not is counted by its word."""
    plane, name = downstream.plane, service.spec.name
    user = _user(key)
    for token in (carried.fields.get(b"x-ring-pass"), carried.linked, cookie_value(head.cookie, RING_PASS)):
        if not token:
            continue
        if service.spec.override == "off":
            plane.tally.proved(name, "pass", OFF)
            continue
        try:
            found = plane.verifier.read(token)
            verdict = check_pass(found, name, plane.verifier.revoked.get(name, ()), user, now)
            if found.ring not in service.overrides and verdict is Verdict.VALID:
                verdict = Verdict.FOREIGN
        except PassError as error:
            verdict = error.verdict
        plane.tally.proved(name, "pass", verdict.value)
        if verdict is Verdict.VALID:
            return token, found
    return None


def _override(downstream: Downstream, service: Service, head: RequestHead, ring: str) -> None:
    """A ring that is named without any proof."""
    allowed = service.spec.override
    if allowed == "insecure" or (allowed == "trusted" and head.is_trusted):
        word = Verdict.VALID.value if ring in service.overrides else Verdict.FOREIGN.value
    else:
        word = OFF if allowed == "off" else UNTRUSTED
    downstream.plane.tally.proved(service.spec.name, "override", word)
    if word == Verdict.VALID.value and not head.override:
        head.override = ring


def _propagated(downstream: Downstream, service: Service, head: RequestHead, carried: Carried, now: float) -> None:
    """The ring that the call chain has had so far. What others say in the same field goes on in any case."""
    plane = downstream.plane
    field = carried.fields.get(b"baggage")
    plain = carried.fields.get(b"x-ring", b"")
    ours = b""
    if field is not None:
        ours, carried.others = read_baggage(field)
    if not ours and not plain:
        return
    is_outbound = downstream.door.is_outbound
    if plane.listener.mode == "edge" and not is_outbound:
        if ours or b"x-ring" not in head.headers:  # a rule may ask for it: then it is no more than a header
            plane.tally.proved(service.spec.name, "baggage", UNTRUSTED)
        return
    ring = ""
    if is_outbound or head.is_trusted:
        ring = ring_of(ours) if ours else plain.decode() if TOKEN.fullmatch(plain) else ""
        claim = Claim.VALID if ring else Claim.MALFORMED
    elif ours:
        claim = check_member(plane.verifier.keys, ours, now)
        if claim is Claim.VALID:
            ring = ring_of(ours)
    else:
        claim = Claim.UNTRUSTED
    if claim is not Claim.UNTRUSTED or ours or b"x-ring" not in head.headers:
        plane.tally.proved(service.spec.name, "baggage", claim.value)
    if ring:
        head.propagated = ring
        if ring not in service.propagated and not head.override:
            carried.journey = ours or write_member(plane.verifier.keys, ring, now)


def travelling(lane: Lane, carried: Carried, said: bytes) -> bytes:
    """The lines that a lane puts into a request, where the request brought some baggage along."""
    if lane.member:
        member = carried.journey or lane.member
        value = with_others(member, carried.others) if carried.others else member
    else:
        value = carried.others
    return b"%b\r\nbaggage: %b" % (said, value) if value else said
