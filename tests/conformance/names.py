"""Bytes that are not in a grammar, and words for them in the names of cases."""

from __future__ import annotations

CONTROLS = [bytes((code,)) for code in range(0x20) if code not in (0x09, 0x0A, 0x0D)]
"""What no field value and no line may hold, besides DEL; TAB, LF and CR have cases of their own."""
DELIMITERS = [bytes((code,)) for code in b'"(),/:;<=>?@[\\]{}']
"""RFC 9110 §5.6.2: visible characters that are not in a token."""
_WORDS = {
    b'"': "quote", b"(": "paren", b")": "closing-paren", b",": "comma", b"/": "slash", b":": "colon",
    b";": "semicolon", b"<": "less", b"=": "equals", b">": "greater", b"?": "question-mark", b"@": "at",
    b"[": "bracket", b"\\": "backslash", b"]": "closing-bracket", b"{": "brace", b"}": "closing-brace",
    b"|": "bar", b"^": "caret", b"`": "backtick", b" ": "space", b"\t": "tab",
}  # fmt: skip


def named(byte: bytes) -> str:
    return _WORDS.get(byte) or f"0x{byte[0]:02x}"
