"""The admin side's settings: where it listens, by which names it may be asked, and who may do what.

Tokens stand here as digests alone: whoever reads the config cannot use them.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from router.config.model import Listen, Model
from router.config.values import Address, check_name

_ADMIN: Final = Address("127.0.0.1", 9900)
MOST_TOKENS: Final = 1000

TokenName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]


class Token(Model):
    """Somebody who may ask the admin side."""

    name: TokenName = Field(description="Who it is: the actor in the audit.")
    role: Literal["viewer", "operator"] = Field(description="viewer reads; operator reads and writes.")
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = Field(
        repr=False, description="SHA-256 of the token in hexadecimal; `ring-router token` makes both."
    )


class AdminSettings(Model):
    """The admin side: health, metrics, API, dashboard."""

    listen: Listen = Field(
        default=_ADMIN,
        json_schema_extra={"default": str(_ADMIN)},
        description="Where the admin side listens; loopback by default.",
    )
    hosts: tuple[Annotated[str, AfterValidator(check_name), AfterValidator(str.lower)], ...] = Field(
        default=(), description="Names it may be asked by, beside IP addresses, localhost and names without a dot."
    )
    tokens: Annotated[tuple[Token, ...], Field(max_length=MOST_TOKENS)] = Field(
        default=(), description="Who may read and write; none: on loopback everybody may read."
    )

    @model_validator(mode="after")
    def _distinct(self) -> AdminSettings:
        for what in ("name", "sha256"):
            values = [getattr(token, what) for token in self.tokens]
            if len(set(values)) < len(values):
                twice = next(token.name for token in self.tokens if values.count(getattr(token, what)) > 1)
                raise PydanticCustomError("choice", f"two tokens have the same {what}, that of {twice}: change one")
        return self

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        host = self.listen.host
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"
