"""Whatever a stranger sends to get into a ring: none of it does, each is counted, and what is real still works."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from router.core.audience import KeySpec
from router.trust.passes import sign_pass
from router.trust.propagation import write_member
from tests import tokens
from tests.house import read_head
from tests.running import Router, running_router
from tests.waiting import until_said

KEY, OLD, STRANGERS = KeySpec("k2", "k" * 40), KeySpec("k1", "o" * 40), KeySpec("k2", "x" * 40)
CONFIG = """\
listen: 127.0.0.1:{port}
admin: {{listen: 127.0.0.1:{admin}}}
workers: {workers}
state_dir: {state}
access_log: {{format: "off"}}
{redis}
mode: sidecar
trusted_proxies: [10.0.0.0/8]
signing_keys:
  - {{id: k2, secret: kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk}}
tokens:
  corp: {{algorithms: [RS256], keys_file: keys.json, issuer: corp, audience: shop}}
services:
  shop:
    identity:
      - {{header: X-Account, trusted: true}}
      - {{claim: sub}}
      - {{header: X-User-Id}}
      - {{anonymous_cookie: {{name: ring_uid, signed: true}}}}
    versions:
      v1: {{endpoints: ["http://127.0.0.1:{v1}"]}}
      v2: {{endpoints: ["http://127.0.0.1:{v2}"]}}
    rings:
      - name: canary
        version: v2
        members: [staff]
        audience:
          - claim: {{name: team, equals: shop}}
          - client: 192.0.2.0/24
      - {{name: everyone, version: v1}}
"""


def a_pass(key: KeySpec = KEY, service: str = "shop", user: str = "", seconds: float = 3600) -> str:
    return sign_pass([key], service, "canary", user, time.time() + seconds)


def claims(**also: object) -> dict[str, object]:
    return {"sub": "staff", "team": "shop", "iss": "corp", "aud": "shop", "exp": int(time.time()) + 3600, **also}


def a_token(said: dict[str, object], key: object = tokens.RSA, algorithm: str = "RS256") -> str:
    return tokens.token(said, key, algorithm, kid="a").decode()


def without_signature() -> str:
    return tokens.by_hand({"alg": "none"}, claims()).decode()


def confused() -> str:
    """Signed with HMAC, the public key as its secret: it verifies where a token may say how it was signed."""
    return tokens.by_hand({"alg": "HS256", "kid": "a"}, claims(), tokens.pem(tokens.RSA)).decode()


def prolonged() -> str:
    """A real pass whose time is changed, with the signature that it had."""
    key_id, payload, signature = a_pass().split(".")
    said = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    said[3] += 10_000_000
    return ".".join((key_id, base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("="), signature))


def anonymous(secret: bytes) -> str:
    """A cookie for a member, signed by somebody."""
    made = hmac.digest(secret, b"staff", hashlib.sha256)[:16]
    return "staff." + base64.urlsafe_b64encode(made).decode().rstrip("=")


@dataclass
class Sent:
    fields: dict[str, str] = field(default_factory=dict)
    counted: str = ""
    """Kind and result of ``ringrouter_proofs_total``; empty where what was sent is no claim at all."""
    path: str = "/"


def carries(token: str, counted: str, **also: str) -> Sent:
    return Sent({"X-Ring-Pass": token, **{name.replace("_", "-"): value for name, value in also.items()}}, counted)


def bearer(token: str, result: str) -> Sent:
    return Sent({"Authorization": f"Bearer {token}"}, f"token {result}")


def baggage(key: KeySpec, age: float, result: str) -> Sent:
    member = write_member([key], "canary", time.time() - age).decode()
    return Sent({"baggage": f"a=b,{member}"}, f"baggage {result}")


FORGED = {
    "a ring that is just said": Sent({"X-Ring": "canary"}, "baggage untrusted"),
    "an override that is just said": Sent({"X-Ring-Override": "canary"}, "override untrusted"),
    "baggage without a signature": Sent({"baggage": "ring=canary"}, "baggage untrusted"),
    "baggage signed by a stranger": baggage(STRANGERS, 0, "forged"),
    "baggage of last year": baggage(KEY, 31_000_000, "expired"),
    "a pass that is over": carries(a_pass(seconds=-1), "pass expired"),
    "a pass of a key that was rotated out": carries(a_pass(OLD), "pass forged"),
    "a pass signed by a stranger": Sent({"Cookie": f"ring_pass={a_pass(STRANGERS)}"}, "pass forged"),
    "a pass that was cut off": carries(a_pass()[:-6], "pass forged"),
    "a pass that was made longer": carries(prolonged(), "pass forged"),
    "another service's pass": carries(a_pass(service="bank"), "pass foreign"),
    "another user's pass": carries(a_pass(user="alice"), "pass foreign", X_User_Id="mallory"),
    "a link with somebody's idea of a pass": Sent({}, "pass malformed", "/?ring_pass=canary"),
    "a trusted proxy's field from a stranger": Sent({"X-Account": "staff"}),
    "the address of somebody else": Sent({"X-Forwarded-For": "192.0.2.7", "Forwarded": "for=192.0.2.7"}),
    "a field that is nominated away": carries(a_pass(OLD), "pass forged", Connection="x-ring-pass, x-user-id"),
    "a token that nobody signed": bearer(without_signature(), "forged"),
    "a token signed with the public key": bearer(confused(), "forged"),
    "a token of another key": bearer(a_token(claims(), tokens.OTHER_RSA), "forged"),
    "a token that is over": bearer(a_token(claims(exp=1)), "expired"),
    "a token for somebody else": bearer(a_token(claims(aud="bank")), "foreign"),
    "a token of another issuer": bearer(a_token(claims(iss="me")), "foreign"),
    "an anonymous cookie that was not minted here": Sent({"Cookie": "ring_uid=staff"}, "cookie forged"),
    "an anonymous cookie signed by a stranger": Sent({"Cookie": f"ring_uid={anonymous(b'x' * 40)}"}, "cookie forged"),
}
REAL = {
    "a pass": carries(a_pass(), "pass valid"),
    "a user's own pass": carries(a_pass(user="alice"), "pass valid", X_User_Id="alice"),
    "a pass in a cookie": Sent({"Cookie": f"a=b; ring_pass={a_pass()}"}, "pass valid"),
    "baggage that is signed": baggage(KEY, 0, "valid"),
    "a token": bearer(a_token(claims()), "valid"),
}


async def ring_for(router: Router, sent: Sent) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    try:
        lines = [
            f"GET {sent.path} HTTP/1.1",
            "Host: shop",
            *(f"{name}: {value}" for name, value in sent.fields.items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = await read_head(reader)
    finally:
        writer.close()
    assert head.startswith(b"HTTP/1.1 200"), head
    return head.lower().partition(b"x-ring: ")[2].partition(b"\r\n")[0].decode()


def counted(router: Router) -> dict[str, float]:
    """Kind and result → how often."""
    found = {}
    for line in router.get("/metrics").decode().splitlines():
        if match := re.match(r'ringrouter_proofs_total{service="shop",kind="(\w+)",result="(\w+)"} (.*)', line):
            found[f"{match[1]} {match[2]}"] = float(match[3])
    return found


async def look(router: Router, table: dict[str, Sent], ring: str) -> dict[str, str]:
    """What went another way than it should, or was not counted: what was sent → what happened."""
    wrong = {}
    for what, sent in table.items():
        before = counted(router)
        found = await ring_for(router, sent)
        if found != ring:
            wrong[what] = f"ring {found}"
        elif sent.counted:
            try:
                await until_said(lambda: counted(router).get(sent.counted) == before[sent.counted] + 1, within=5)  # noqa: B023
            except AssertionError:
                after = counted(router)
                wrong[what] = f"counted as {[one for one in after if after[one] != before[one]]}, not {sent.counted}"
    return wrong


async def test_what_is_forged_leads_nowhere_and_what_is_real_leads_into_the_ring(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(tokens.jwk_set(tokens.public_jwk(tokens.RSA, kid="a")))
    async with running_router(tmp_path, config=CONFIG) as router:
        assert await look(router, FORGED, "everyone") == {}
        assert await look(router, REAL, "canary") == {}
