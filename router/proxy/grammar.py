"""What may stand in a line of HTTP/1, and the errors for what may not (RFC 9110 §5.5, §5.6.2; RFC 9112)."""

from __future__ import annotations

import re
from typing import Final

TOKEN_FORM: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
VALUE_FORM: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
"""Possessive, as all expressions here, so that no line can make the matcher go back and forth."""
TOKEN: Final = re.compile(TOKEN_FORM)
FIELD_LINE: Final = re.compile(rb"(" + TOKEN_FORM + rb"):(" + VALUE_FORM + rb")")
BARE_LF: Final = re.compile(rb"(?<!\r)\n")


class FramingError(ValueError):
    """The message cannot be framed; whoever sent it cannot be trusted with the connection any longer."""


class UnknownCodingError(FramingError):
    """A transfer coding before the final chunked (RFC 9112 §6.1)."""


class UnknownVersionError(FramingError):
    """A major version that is not ours (RFC 9110 §2.5)."""


class RefusedMethodError(FramingError):
    """A method that is not for this proxy."""


class TargetTooLongError(FramingError):
    """A request target beyond the limit."""


class TooManyFieldsError(FramingError):
    """More fields than the limit."""


class ExpectationError(FramingError):
    """An expectation other than 100-continue (RFC 9110 §10.1.1)."""
