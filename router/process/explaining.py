"""A described request becomes one that the decision can look at, and its trace plain data. It is sent nowhere."""

from __future__ import annotations

import time
from typing import Any

from router.admin.bodies import Asked
from router.admin.trouble import Trouble
from router.core.explain import explain
from router.core.identity import put_key
from router.core.rules import Request
from router.core.snapshot import Service, Snapshot
from router.core.spec import SnapshotSpec
from router.core.trace import as_plain
from router.proxy.tables import OpenTables


def explain_asked(spec: SnapshotSpec | None, asked: Asked) -> dict[str, Any]:
    """The trace of one request. Raises ``Trouble`` where no service answers for it."""
    if spec is None:
        raise Trouble("not_available", "There is no snapshot yet: the router is starting.")
    try:
        snapshot = Snapshot(spec, OpenTables().get)
    except (OSError, ValueError) as error:
        raise Trouble("not_available", f"The lists of members cannot be opened: {error}.") from None
    request = _request(asked)
    service = _service(snapshot, asked, request)
    if asked.user is not None:
        _identify(service, request, asked.user.encode("utf-8", "surrogatepass"))
    return as_plain(explain(service, request))


def _request(asked: Asked) -> Request:
    headers: dict[bytes, bytes] = {}
    jar: list[bytes] = []
    for name, value in asked.headers.items():
        field, text = _bytes(name.strip().lower()), _bytes(value)
        if field == b"cookie":
            jar.append(text)
        else:
            headers[field] = headers[field] + b", " + text if field in headers else text
    jar += [_bytes(f"{name}={value}") for name, value in asked.cookies.items()]
    host = _bytes(asked.host).lower() or headers.get(b"host", b"").lower()
    bare, colon, port = host.rpartition(b":")
    path, _, query = _bytes(asked.path).partition(b"?")
    request = Request(bare if colon and port.isdigit() else host, path or b"/", headers, b"; ".join(jar))
    request.method = _bytes(asked.method)
    request.query = query
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
