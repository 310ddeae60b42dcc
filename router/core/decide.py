"""The decision: who is it, which ring, which version. The whole way, in walking order."""

from __future__ import annotations

from bisect import bisect_right

from router.core.hashing import UserKey, bucket_of
from router.core.rules import Request, cookie_value
from router.core.snapshot import Decision, Service


def identify(service: Service, request: Request) -> UserKey | None:
    """The key of whoever asks: the first identity source with a value that is not empty; None if none has one."""
    for is_header, name in service.identity:
        value = request.headers.get(name) if is_header else cookie_value(request.cookie, name)
        if value:
            return value  # type: ignore[return-value]  # UserKey(value) would be a call, and calls are what costs here
    return None


def decide(service: Service, request: Request, key: UserKey | None) -> Decision:
    """Members, then rules (inner ring first), then the hash, then the default ring. Kills are in the tables already.

    ``key`` is what ``identify`` returned, or a freshly minted anonymous one.
    """
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
    return service.by_hash[bisect_right(service.bounds, bucket_of(key, service.salt))]
