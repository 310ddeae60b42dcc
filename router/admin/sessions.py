"""Sessions of the dashboard: signed cookies that hold who, until when, and by which token. And the one-time link.

The key is made at the start and nowhere kept, so a restart ends every session. Time and chance are arguments. A session
is worth what its token is worth now: taken out of the config, it is worth nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from router.admin.auth import Caller, is_link_allowed
from router.config.admin import AdminSettings, Token

SESSION_SECONDS: Final = 12 * 3600.0
LINK_SECONDS: Final = 600.0
LINK_NAME: Final = "link"
"""The actor of whoever came by the one-time link."""
MOST_ENDED: Final = 10_000
LONGEST_COOKIE: Final = 1024


class _Claims(msgspec.Struct, array_like=True):
    id: str
    name: str
    digest: str
    """Of the token; empty: the one-time link."""
    expires: float


class Sessions:
    """Makes and reads session cookies."""

    def __init__(self, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._random = random
        self._key = random(32)
        self._ended: OrderedDict[str, None] = OrderedDict()

    def begin(self, token: Token | None, now: float) -> tuple[str, Caller]:
        """The cookie's value, and whom it makes of whoever sends it. ``token`` None: the one-time link."""
        name, digest = (LINK_NAME, "") if token is None else (token.name, token.sha256)
        claims = _Claims(_text(self._random(18)), name, digest, round(now + SESSION_SECONDS, 3))
        payload = msgspec.json.encode(claims)
        cookie = f"{_text(payload)}.{_text(self._sign(b'session', payload))}"
        role = "operator" if token is None else token.role
        return cookie, Caller(name, role, "session", claims.expires, self._csrf(claims.id))

    def read(self, cookie: str, settings: AdminSettings, now: float) -> Caller | None:
        """Whose session it is; None: it is forged, over, ended, or its token is gone."""
        claims = self._claims(cookie)
        if claims is None or claims.expires <= now or claims.id in self._ended:
            return None
        csrf = self._csrf(claims.id)
        if not claims.digest:
            allowed = is_link_allowed(settings)
            return Caller(claims.name, "operator", "session", claims.expires, csrf) if allowed else None
        for token in settings.tokens:
            if token.sha256 == claims.digest:
                return Caller(token.name, token.role, "session", claims.expires, csrf)
        return None

    def end(self, cookie: str) -> None:
        """It counts no more, wherever a copy of it may be."""
        claims = self._claims(cookie)
        if claims is not None:
            self._ended[claims.id] = None
            while len(self._ended) > MOST_ENDED:
                self._ended.popitem(last=False)

    def _claims(self, cookie: str) -> _Claims | None:
        payload_text, dot, signature_text = cookie.partition(".")
        if not dot or len(cookie) > LONGEST_COOKIE:
            return None
        payload, signature = _bytes(payload_text), _bytes(signature_text)
        if not hmac.compare_digest(signature, self._sign(b"session", payload)):
            return None
        try:
            return msgspec.json.decode(payload, type=_Claims)
        except msgspec.DecodeError:
            return None

    def _csrf(self, id_: str) -> str:
        return _text(self._sign(b"csrf", id_.encode()))

    def _sign(self, purpose: bytes, data: bytes) -> bytes:
        return hmac.digest(self._key, purpose + b"\0" + data, hashlib.sha256)


class Link:
    """The secret of the one-time link: good for ten minutes, and for one use."""

    def __init__(self, now: float, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._secret: str | None = _text(random(24))
        self._expires = now + LINK_SECONDS

    @property
    def secret(self) -> str | None:
        """None: it was used."""
        return self._secret

    def redeem(self, secret: str, now: float) -> bool:
        """Whether this is it. The second time it is not."""
        known = self._secret
        if known is None or now >= self._expires:
            return False
        if not hmac.compare_digest(known.encode(), secret.encode("utf-8", "surrogatepass")):
            return False
        self._secret = None
        return True


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    """Of what ``_text`` made; empty for anything else, which is no signature."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return b""
