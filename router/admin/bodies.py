"""What the API takes, and what a write gives, as types: decoded strictly, and what the OpenAPI document is made of.

Unknown keys are refused. What only a service's config can judge (is there such a ring?) is judged further in, by the
same parser that judges what people type into Redis.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from router.rollout.observation import Verb

SERVICE: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$"
NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Of rings and versions. Both are the config's own rules: a name that no config can have is refused at the door."""
LONGEST_REASON: Final = 500
MOST_KEYS: Final = 1000
ANY_REV: Final = "*"
"""As in ``If-Match: *`` (RFC 9110 §13.1.1): whatever it is now."""

Role = Literal["viewer", "operator"]
Service = Annotated[str, Meta(pattern=SERVICE, description="The service's name in the config.")]
Name = Annotated[str, Meta(pattern=NAME)]
Reason = Annotated[
    str,
    Meta(
        min_length=1, max_length=LONGEST_REASON, pattern=r"\S",
        description="Why: it goes into the audit, and is shown to everybody.",
    ),
]  # fmt: skip
Rev = Annotated[
    str,
    Meta(
        min_length=1, max_length=64,
        description="The `rev` that this change is based on, from the state or the rings; `*`: whatever it is now.",
    ),
]  # fmt: skip
Percent = Annotated[float, Meta(ge=0, le=100, description="Percent, two decimals at the most.")]
Key = Annotated[str, Meta(min_length=1, max_length=512, description="A user's identity key.")]


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every write has."""

    service: Service
    expected_rev: Rev
    reason: Reason
    dry_run: bool = False
    """True: judge it and say what it would do, and write nothing."""


class SetWeights(Change, frozen=True, kw_only=True):
    """POST /weights. A ring that is not named stays as it is; null: as in the config file. Not for the default ring."""

    weights: Annotated[dict[Name, Percent | None], Meta(max_length=256)] = {}
    reset: bool = False
    """True: the config file's weights; then ``weights`` stays empty."""


class SetVersions(Change, frozen=True, kw_only=True):
    """POST /versions. Ring → version; null: as in the config file."""

    versions: Annotated[dict[Name, Name | None], Meta(min_length=1, max_length=256)]


class SetKilled(Change, frozen=True, kw_only=True):
    """POST /kill. All rings that nobody may be in from now on; none lifts every kill; ``*``: all but the default."""

    rings: Annotated[list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(max_length=256)]


class SetFrozen(Change, frozen=True, kw_only=True):
    """POST /freeze. While it is frozen widening is refused for everybody, with the reason of this call."""

    frozen: bool


class ChangeMembers(Change, frozen=True, kw_only=True):
    """POST /members. Users of one ring, by key, in Redis; those of the config file stay."""

    ring: Name
    add: Annotated[list[Key], Meta(max_length=MOST_KEYS)] = []
    remove: Annotated[list[Key], Meta(max_length=MOST_KEYS)] = []


class SetDrained(Change, frozen=True, kw_only=True):
    """POST /drain. One endpoint by its address, ``host:port`` or ``unix:/path``."""

    address: Annotated[str, Meta(min_length=1, max_length=300)]
    drained: bool


class Undo(Change, frozen=True, kw_only=True):
    """POST /undo. Takes back the last recorded change of the weights; a second one takes back the first."""


class Reload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """POST /reload. The config file is read now; ``expected_rev`` is the config's revision."""

    expected_rev: Rev
    reason: Reason
    dry_run: bool = False


class StartRollout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """POST /rollouts/{service}. ``plan`` is what stands under the service's name in a plan file."""

    plan: Annotated[dict[str, Any], Meta(min_length=1)]
    reason: Reason
    supersedes: bool = False
    """True: one that runs ends, and its rings go back to its stable version."""


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """POST /rollouts/{service}/pause, approve, promote and abort."""

    reason: Reason


class Resume(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """POST /rollouts/{service}/resume. ``adopt``: go on from the weights that somebody has set; ``restore``: put the
    plan's back; ``accept``: count the step as done without its proof."""

    reason: Reason
    how: Literal["", "adopt", "restore", "accept"] = ""


class RollBack(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """POST /rollouts/{service}/rollback. Nobody has to think of a reason first."""

    reason: Annotated[str, Meta(max_length=LONGEST_REASON)] = ""


Ordered = Order | Resume | RollBack
ORDERS: Final[dict[Verb, type[Ordered]]] = {
    "pause": Order, "resume": Resume, "approve": Order, "promote": Order, "rollback": RollBack, "abort": Order,
}  # fmt: skip
"""What each order's body is."""


class Move(msgspec.Struct, frozen=True):
    """Users who get another ring by hash. ``percent`` of everybody."""

    before: str
    after: str
    direction: Literal["inward", "outward"]
    percent: float
    people: int | None = None
    """About how many were seen in two days; None where nobody keeps count. Of a dry run alone."""


class Done(msgspec.Struct, frozen=True):
    """What a write did, or with ``dry_run`` would do."""

    dry_run: bool
    changes: list[str]
    """Sentences: ``canary 5 → 10 percent``. None: everything was so already."""
    rev: str
    """What the next write has to name. Of a dry run: what this one has to name."""
    command: str
    """What would have done the same by hand, for redis-cli."""
    moves: list[Move] = []
    everybody: int | None = None
    """Of whom ``people`` are a part."""


class Problem(msgspec.Struct, frozen=True):
    """What is wrong (RFC 9457, ``application/problem+json``). ``code`` is a stable word."""

    status: int
    title: str
    detail: str
    code: str
    current: dict[str, Any] | None = None
    """With ``code`` stale: the service as it is now, as ``/api/v1/state`` has it; with not_now: its rollout."""


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /login."""

    token: Annotated[str, Meta(min_length=1, max_length=200)]


class Session(msgspec.Struct, frozen=True):
    """Who is asking. ``role`` None: a stranger, who may read only where ``reads_open``."""

    name: str | None
    role: Role | None
    by: Literal["token", "session", "nobody"]
    reads_open: bool
    expires: float | None
    """Of a session, Unix seconds."""
    csrf: str | None
    """Of a session: what goes into X-CSRF-Token with each write."""


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request to be explained. It is sent nowhere."""

    service: Annotated[str, Meta(pattern=SERVICE)] | None = None
    """Without it, host and path choose, as for a real request."""
    host: Annotated[str, Meta(max_length=255)] = ""
    path: Annotated[str, Meta(max_length=8192)] = "/"
    method: Annotated[str, Meta(max_length=32)] = "GET"
    headers: Annotated[dict[str, str], Meta(max_length=100)] = {}
    cookies: Annotated[dict[str, str], Meta(max_length=100)] = {}
    user: Annotated[str, Meta(max_length=512)] | None = None
    """Sets the service's first identity header or cookie."""
    client: Annotated[str, Meta(max_length=64)] | None = None
    """The client's address."""
