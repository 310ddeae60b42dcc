"""A described request becomes one that the decision can look at, and its trace plain data. It is sent nowhere."""

from __future__ import annotations

import time
from typing import Any

from router.admin.bodies import Asked
from router.admin.trouble import Trouble
from router.core.explain import explain
from router.core.identity import described, put_key
from router.core.request import Request
from router.core.snapshot import Service, Snapshot
from router.core.spec import SnapshotSpec
from router.core.trace import as_plain
from router.proxy.tables import OpenTables
from router.proxy.weighing import weigh
from router.trust.tokens import MissingLibraryError


def explain_asked(spec: SnapshotSpec | None, asked: Asked) -> dict[str, Any]:
    """The trace of one request. Raises ``Trouble`` where no service answers for it."""
    if spec is None:
        raise Trouble("not_available", "There is no snapshot yet: the router is starting.")
    tables = OpenTables(None, is_first=False).find
    try:
        snapshot = Snapshot(spec, tables)
    except (OSError, ValueError) as error:
        raise Trouble("not_available", f"The lists of members cannot be opened: {error}.") from None
    request = _request(asked)
    service = _service(snapshot, asked, request)
    if asked.user is not None:
        _identify(service, request, asked.user.encode("utf-8", "surrogatepass"))
    # `user` may stand for what only a trusted peer says; that does not make the peer trusted in anything else.
    believed, request.is_trusted = request.is_trusted, False
    try:
        proofs = weigh(request, service, spec.trust, mode=spec.listener.mode)
    except MissingLibraryError as missing:
        raise Trouble("not_available", f"{missing}.") from None
    request.is_trusted = believed
    return as_plain(explain(service, request, tables), proofs)


def _request(asked: Asked) -> Request:
    fields = [(_bytes(name), _bytes(value)) for name, value in asked.headers.items()]
    fields += [(b"cookie", _bytes(f"{name}={value}")) for name, value in asked.cookies.items()]
    request = described(_bytes(asked.host), _bytes(asked.path), fields, _bytes(asked.method))
    request.client = _bytes(asked.client or "")
    request.now = time.time()
    return request


def _service(snapshot: Snapshot, asked: Asked, request: Request) -> Service:
    if asked.service is not None:
        for service in snapshot.services:
            if service.spec.name == asked.service:
                return service
        raise Trouble("not_found", f"There is no service {asked.service}.")
    if len(snapshot.services) == 1 and not request.host and request.path == b"/":
        return snapshot.services[0]
    found = snapshot.find(request.host, request.path)
    if found is None:
        raise Trouble("not_found", "No service answers for this host and path: the proxy would say 404.")
    return found


def _identify(service: Service, request: Request, key: bytes) -> None:
    """Put the key where the service looks first; a cookie of the router's own is the last choice."""
    sources = service.spec.identity
    if not sources:
        raise Trouble("refused", f"{service.spec.name} has no `identity:`: `user` means nothing there, leave it out.")
    put_key(next((one for one in sources if one.kind != "anonymous_cookie"), sources[0]), request, key)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
