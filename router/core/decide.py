"""The decision: who is it, which ring, which version. The whole way, in walking order."""

from __future__ import annotations

from bisect import bisect_right

from xxhash import xxh64_intdigest

from router.core.hashing import BUCKETS, UserKey, bucket_of, fingerprint
from router.core.request import UNKNOWN, Request, cookie_value, fingerprint_of
from router.core.snapshot import Decision, Holdback, Service


def identify(service: Service, request: Request) -> UserKey | None:
    """The key of whoever asks: the first identity source with a value that is not empty; None if none has one."""
    for is_header, name in service.identity:
        value = request.headers.get(name) if is_header else cookie_value(request.cookie, name)
        if value:
            return value  # type: ignore[return-value]  # UserKey(value) would be a call, and calls are what costs here
    if service.finders:
        for find in service.finders:
            value = find(request)
            if value:
                return UserKey(value)
    return None


def decide(service: Service, request: Request, key: UserKey | None) -> Decision:
    """The published precedence: kill > override > propagated > denied > members > rules > hash > default.

    It gives the ring. Its version is the ring's, but for those whom a holdback leaves with the next one outward.

    Kills are in the tables already. ``key`` is what ``identify`` returned, or a freshly minted anonymous one; it is
    noted in the request.
    """
    request.key = key
    if request.override or request.propagated:
        forced = forced_decision(service, request)
        if forced is not None:
            return forced
    if service.is_intricate:
        decision = _decide_with_care(service, request, key)
        return decision if key is None or not service.holdbacks else _or_held_back(service, request, key, decision)
    if key is not None and service.members:
        member = service.members.get(key)
        if member is not None:
            return member
    if not service.rules.is_empty:
        _, ruled = service.rules.first(request)
        if ruled is not None:
            return ruled
    if key is None:
        return service.default
    request.digest = digest = xxh64_intdigest(service.salt + key)
    return service.by_hash[bisect_right(service.bounds, digest % BUCKETS)]


def forced_decision(service: Service, request: Request) -> Decision | None:
    """Where an override or a propagated ring leads; None if there is neither.

    An override that names no ring of this service is nobody's wish. A propagated ring that it does not have is another
    service's word: the default ring is this one's part of that call chain.
    """
    if request.override:
        overridden = service.overrides.get(request.override)
        if overridden is not None:
            return overridden
    if request.propagated:
        return service.propagated.get(request.propagated, service.astray)
    return None


def _decide_with_care(service: Service, request: Request, key: UserKey | None) -> Decision:
    """The same for services with denied lists, member tables, lists or shares inside of rules, or two keys per user."""
    take_notes(service, request, key)
    denied = denied_places(service, request) if service.denied else 0
    if key is not None:
        member = member_decision(service, request, key, denied)
        if member is not None:
            return member
    if not service.rules.is_empty:
        ruled = service.rules.first(request)[1] if not denied else _first_rule(service, request, denied)
        if ruled is not None:
            return ruled
    if key is None:
        return service.default
    return landing(service, hashed_place(service, request, key), denied)


def _or_held_back(service: Service, request: Request, key: UserKey, decision: Decision) -> Decision:
    """The ring is what it is; some of its users keep the version of the next one outward (``Holdback``)."""
    holdback = service.holdbacks.get(decision.index)
    if holdback is None or holdback_bucket(holdback, request, key) >= holdback.basis_points:
        return decision
    return holdback.decision


def holdback_bucket(holdback: Holdback, request: Request, key: UserKey) -> int:
    """Where a user is in the hash space of a holdback; of two keys' buckets the one that is held back sooner.

    It goes by the keys that are hashed for the ring (``take_notes``), so that a login changes no version.
    """
    bucket = bucket_of(key if request.hashed is None else request.hashed, holdback.salt)
    if request.outer is not None:
        bucket = min(bucket, bucket_of(request.outer, holdback.salt))
    return bucket


def landing(service: Service, place: int, denied: int) -> Decision:
    """The ring whose interval it is, or the next one outward that is neither killed nor denies whoever asks."""
    decision = service.by_hash[place]
    while denied >> decision.place & 1:
        decision = service.by_hash[decision.place + 1]
    return decision


def take_notes(service: Service, request: Request, key: UserKey | None) -> None:
    """Note which keys are hashed: the user's own, the anonymous cookie's in its place, or both."""
    request.key = key
    request.fingerprint = UNKNOWN
    request.hashed = request.outer = None
    if service.find_anonymous is not None and key is not None and request.cookie:
        anonymous = service.find_anonymous(request)
        if anonymous and anonymous != key:
            if service.takes_outer:
                request.outer = UserKey(anonymous)
            else:
                request.hashed = UserKey(anonymous)


def denied_places(service: Service, request: Request) -> int:
    """The rings that deny whoever asks, as a set of bits by their places."""
    denied = 0
    for place, rules in service.denied:
        if rules.first(request)[1]:
            denied |= 1 << place
    return denied


def member_decision(service: Service, request: Request, key: UserKey, denied: int) -> Decision | None:
    """The inner one of the rings that list the user and do not deny them.

    The anonymous cookie's key counts where the user's own is listed nowhere.
    """
    member = _listed(service, key, denied)
    if service.tables:
        member = _in_tables(service, fingerprint_of(request, key), denied, member)
    if member is None:
        anonymous = request.hashed if request.outer is None else request.outer
        if anonymous is not None:
            member = _listed(service, anonymous, denied)
            if service.tables:
                member = _in_tables(service, fingerprint(anonymous), denied, member)
    return member


def _listed(service: Service, key: UserKey, denied: int) -> Decision | None:
    member = service.members.get(key)
    if member is None or not denied >> member.place & 1:
        return member
    for one in service.memberships.get(key, ()):
        if not denied >> one.place & 1:
            return one
    return None


def _in_tables(service: Service, number: int, denied: int, member: Decision | None) -> Decision | None:
    """The inner one of the ring that was found so far and those whose tables list the user."""
    for decision, table in service.tables:
        if member is not None and decision.place >= member.place:
            return member
        if not denied >> decision.place & 1 and table.has(number):
            return decision
    return member


def _first_rule(service: Service, request: Request, denied: int) -> Decision | None:
    """The first rule that holds, of the rings that do not deny whoever asks."""
    for place, rules in service.rules_by_ring:
        if not denied >> place & 1:
            ruled = rules.first(request)[1]
            if ruled is not None:
                return ruled
    return None


def hashed_place(service: Service, request: Request, key: UserKey) -> int:
    """The place of the ring that owns the bucket; of two keys' places the outer one."""
    hashed = request.hashed
    if hashed is not None or service.salt:
        digest = fingerprint(service.salt + (key if hashed is None else hashed))
    else:
        digest = fingerprint_of(request, key)
    if request.outer is not None:
        digest = max(digest, fingerprint(service.salt + request.outer), key=_bucket)
    request.digest = digest
    return bisect_right(service.bounds, digest % BUCKETS)


def _bucket(digest: int) -> int:
    return digest % BUCKETS
