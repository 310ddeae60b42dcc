"""Chunks of requests: RFC 9112 §7.1."""

from __future__ import annotations

from tests.conformance.case import RequestCase, Seen, chunked, passed, refused

_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

GOOD_BODIES = (
    ("none", "9112 §7.1", b"0\r\n\r\n", b""),
    ("one", "9112 §7.1", b"5\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    ("two", "9112 §7.1", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
    ("of-a-byte", "9112 §7.1", b"".join(b"1\r\n%c\r\n" % c for c in b"abcde") + b"0\r\n\r\n", b"abcde"),
    ("in-lower-hex", "9112 §7.1", b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    ("in-upper-hex", "9112 §7.1", b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    ("in-mixed-hex", "9112 §7.1", b"aB\r\n" + b"x" * 171 + b"\r\n0\r\n\r\n", b"x" * 171),
    ("of-two-digits", "9112 §7.1", b"10\r\n0123456789abcdef\r\n0\r\n\r\n", b"0123456789abcdef"),
    ("with-zero-in-front", "9112 §7.1", b"05\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    ("with-14-zeros-in-front", "9112 §7.1", b"0" * 14 + b"5\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    ("with-20-zeros-in-front", "9112 §7.1", b"0" * 20 + b"5\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    ("with-last-of-two-zeros", "9112 §7.1", b"5\r\nabcde\r\n00\r\n\r\n", b"abcde"),
    ("with-last-of-20-zeros", "9112 §7.1", b"5\r\nabcde\r\n" + b"0" * 20 + b"\r\n\r\n", b"abcde"),
    ("of-line-ends", "9112 §7.1", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
    ("of-a-last-chunk", "9112 §7.1", b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
    ("of-a-request", "9112 §7.1", b"%x\r\n" % len(_SMUGGLED) + _SMUGGLED + b"\r\n0\r\n\r\n", _SMUGGLED),
    ("of-every-byte", "9112 §7.1", b"100\r\n" + bytes(range(256)) + b"\r\n0\r\n\r\n", bytes(range(256))),
    ("of-70000-bytes", "9112 §7.1", b"11170\r\n" + b"y" * 70_000 + b"\r\n0\r\n\r\n", b"y" * 70_000),
    ("many", "9112 §7.1", b"2\r\nab\r\n" * 500 + b"0\r\n\r\n", b"ab" * 500),
    ("extension", "9112 §7.1.1", b"5;a\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    ("extension-with-value", "9112 §7.1.1", b"5;a=b\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    ("extension-quoted", "9112 §7.1.1", b'5;a="b"\r\nabcde\r\n0\r\n\r\n', b"abcde"),
    ("extension-quoted-empty", "9112 §7.1.1", b'5;a=""\r\nabcde\r\n0\r\n\r\n', b"abcde"),
    ("extension-quoted-with-space-and-semicolon", "9112 §7.1.1", b'5;a="b; c"\r\nabcde\r\n0\r\n\r\n', b"abcde"),
    ("extension-quoted-with-quote", "9112 §7.1.1", b'5;a="b\\"c"\r\nabcde\r\n0\r\n\r\n', b"abcde"),
    ("extension-quoted-with-backslash", "9112 §7.1.1", b'5;a="\\\\"\r\nabcde\r\n0\r\n\r\n', b"abcde"),
    ("extension-quoted-with-tab", "9112 §7.1.1", b'5;a="b\tc"\r\nabcde\r\n0\r\n\r\n', b"abcde"),
    ("extension-quoted-with-obs-text", "9112 §7.1.1", b'5;a="\xe4\xff"\r\nabcde\r\n0\r\n\r\n', b"abcde"),
    ("extension-quoted-with-comma-and-equals", "9112 §7.1.1", b'5;a="b,c=d"\r\nabcde\r\n0\r\n\r\n', b"abcde"),
    ("extensions-two", "9112 §7.1.1", b"5;a;b=c\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    ("extensions-many", "9112 §7.1.1", b"5" + b";a=b" * 100 + b"\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    ("extension-with-space-before", "9112 §7.1.1", b"5 ;a\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    ("extension-with-tab-before", "9112 §7.1.1", b"5\t;a\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    ("extension-with-space-behind-semicolon", "9112 §7.1.1", b"5; a\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    ("extension-with-spaces-around-equals", "9112 §7.1.1", b"5;a = b\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    ("extension-with-spaces-everywhere", "9112 §7.1.1", b'5 \t; a \t=\t "b" ; c\r\nabcde\r\n0\r\n\r\n', b"abcde"),
    ("extension-of-token-characters", "9112 §7.1.1", b"5;!#$%&'*+-.^_`|~=!\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    ("extension-of-digits", "9112 §7.1.1", b"5;1=2\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    ("extension-of-last-chunk", "9112 §7.1.1", b'5\r\nabcde\r\n0;a="b"\r\n\r\n', b"abcde"),
    ("extension-of-900-bytes", "9112 §7.1.1", b"5;a=" + b"b" * 900 + b"\r\nabcde\r\n0\r\n\r\n", b"abcde"),
)
"""Name, section, chunks, payload."""

_GOOD = [
    passed(f"chunks-{name}", section, chunked(body), Seen(b"POST", body=payload))
    for name, section, body, payload in GOOD_BODIES
]

BAD_SIZES = (
    ("empty", b""),
    ("of-a-space", b" "),
    ("with-space-in-front", b" 5"),
    ("with-tab-in-front", b"\t5"),
    ("with-space-behind", b"5 "),
    ("with-tab-behind", b"5\t"),
    ("with-space-within", b"0 5"),
    ("with-plus", b"+5"),
    ("with-minus", b"-5"),
    ("with-0x", b"0x5"),
    ("with-hash", b"#5"),
    ("with-dollar", b"$5"),
    ("with-h", b"5h"),
    ("with-underscore", b"0_5"),
    ("with-full-stop", b"5.0"),
    ("with-comma", b"5,"),
    ("with-colon", b"5:"),
    ("with-equals", b"5=a"),
    ("with-word-behind", b"5 a"),
    ("of-no-hex-digit", b"g"),
    ("of-a-word", b"five"),
    ("of-quoted-digit", b'"5"'),
    ("of-percent-encoded-digit", b"%35"),
    ("of-16-digits", b"1000000000000005"),
    ("of-16-f", b"f" * 16),
    ("of-17-digits-that-wrap", b"10000000000000005"),
    ("of-33-digits-that-wrap", b"1" + b"0" * 31 + b"5"),
    ("of-16-digits-behind-zeros", b"0001000000000000005"),
    ("of-300-digits", b"5" * 300),
    ("with-nul", b"5\x00"),
    ("with-vertical-tab", b"5\x0b"),
    ("with-form-feed-in-front", b"\x0c5"),
    ("with-nbsp", b"5\xa0"),
    ("with-byte-255", b"\xff5"),
    ("in-full-width-digits", b"\xef\xbc\x95"),
    ("with-bare-cr", b"5\r"),
    ("with-bare-cr-in-front", b"\r5"),
    ("with-bare-lf-in-front", b"\n5"),
    ("with-bare-cr-and-data", b"5\rabcde"),
)
"""What may not stand where a size of 5 would."""

_BAD_SIZES = [
    refused(f"chunk-size-{name}", "9112 §7.1", chunked(line + b"\r\nabcde\r\n0\r\n\r\n")) for name, line in BAD_SIZES
]

BAD_EXTENSIONS = (
    ("empty", b";"),
    ("of-space", b"; "),
    ("empty-twice", b";;"),
    ("empty-then-one", b";;a"),
    ("then-empty", b";a;"),
    ("then-empty-and-space", b";a; "),
    ("without-name", b";=b"),
    ("without-value", b";a="),
    ("without-value-then-one", b";a=;b"),
    ("with-two-equals", b";a==b"),
    ("with-two-values", b";a=b=c"),
    ("with-words", b";a b"),
    ("with-two-words-as-value", b";a=b c"),
    ("with-space-at-the-end", b";a "),
    ("with-space-behind-value", b";a=b "),
    ("with-tab-behind-value", b";a=b\t"),
    ("with-open-quote", b';a="b'),
    ("with-closing-quote-alone", b';a=b"'),
    ("with-quote-escaped-at-the-end", b';a="b\\"'),
    ("with-text-behind-quote", b';a="b"c'),
    ("with-text-before-quote", b';a=b"c"'),
    ("with-quoted-name", b';"a"=b'),
    ("with-comma", b";a,b"),
    ("with-slash", b";a/b"),
    ("with-bracket", b";[a]"),
    ("with-nul", b";a\x00"),
    ("with-control", b";a=\x01"),
    ("with-del", b";a\x7f"),
    ("with-obs-text", b";\xe4"),
    ("with-obs-text-as-value", b";a=\xe4"),
    ("quoted-with-nul", b';a="\x00"'),
    ("quoted-with-control", b';a="\x1f"'),
    ("quoted-with-del", b';a="\x7f"'),
    ("quoted-with-escaped-control", b';a="\\\x01"'),
    ("quoted-with-bare-cr", b';a="b\rc"'),
    ("quoted-with-bare-lf", b';a="b\nc"'),
    ("quoted-with-line-end", b';a="b\r\nc"'),
    ("quoted-with-escaped-line-end", b';a="b\\\r\nc"'),
    ("with-bare-lf", b";a\nb"),
    ("with-bare-lf-at-once", b";\na"),
    ("with-bare-cr", b";a\rb"),
    ("with-bare-cr-at-the-end", b";a\r"),
    ("of-2000-bytes", b";a=" + b"b" * 2000),
    ("of-70000-bytes", b";a=" + b"b" * 70_000),
)
"""What may not follow a size."""

_BAD_EXTENSIONS = [
    refused(f"chunk-extension-{name}", "9112 §7.1.1", chunked(b"5" + extension + b"\r\nabcde\r\n0\r\n\r\n"))
    for name, extension in BAD_EXTENSIONS
]

BAD_BODIES = (
    ("size-line-with-bare-lf", b"5\nabcde\r\n0\r\n\r\n"),
    ("all-with-bare-lf", b"5\nabcde\n0\n\n"),
    ("data-without-line-end", b"5\r\nabcde0\r\n\r\n"),
    ("data-with-bare-lf-behind", b"5\r\nabcde\n0\r\n\r\n"),
    ("data-with-bare-cr-behind", b"5\r\nabcde\r0\r\n\r\n"),
    ("data-with-lf-cr-behind", b"5\r\nabcde\n\r0\r\n\r\n"),
    ("data-with-two-line-ends-behind", b"5\r\nabcde\r\n\r\n0\r\n\r\n"),
    ("data-with-space-behind", b"5\r\nabcde \r\n0\r\n\r\n"),
    ("data-longer-than-its-size", b"5\r\nabcdef\r\n0\r\n\r\n"),
    ("data-shorter-than-its-size", b"6\r\nabcde\r\n0\r\n\r\n"),
    ("data-with-two-bytes-behind", b"5\r\nabcdeXX0\r\n\r\n"),
    ("data-of-the-next-chunk-malformed", b"5\r\nabcde\r\n2\r\nabc\r\n0\r\n\r\n"),
    ("size-of-the-next-chunk-malformed", b"5\r\nabcde\r\nx\r\n"),
    ("body-that-is-not-chunked", b"hello\r\n\r\n"),
    ("body-that-is-a-request", _SMUGGLED),
    ("last-with-bare-lf", b"5\r\nabcde\r\n0\n\r\n"),
    ("last-with-bare-lf-twice", b"5\r\nabcde\r\n0\n\n"),
    ("end-with-bare-lf", b"5\r\nabcde\r\n0\r\n\n"),
    ("end-with-bare-cr", b"5\r\nabcde\r\n0\r\n\rX\r\n\r\n"),
    ("end-with-space", b"5\r\nabcde\r\n0\r\n \r\n"),
    ("last-with-space-behind", b"5\r\nabcde\r\n0 \r\n\r\n"),
    ("last-with-minus", b"5\r\nabcde\r\n-0\r\n\r\n"),
    ("last-with-0x", b"5\r\nabcde\r\n0x0\r\n\r\n"),
    ("last-with-bad-extension", b"5\r\nabcde\r\n0;\r\n\r\n"),
    ("last-with-bare-cr", b"5\r\nabcde\r\n0\rX\r\n\r\n"),
    ("end-is-a-request", b"5\r\nabcde\r\n0\r\nGET / HTTP/1.1\r\n\r\n"),
)
"""Bodies that go wrong somewhere else."""

_BAD_ENDS = [refused(f"chunks-{name}", "9112 §7.1", chunked(body)) for name, body in BAD_BODIES]

UNFINISHED_BODIES = (
    ("at-once", b""),
    ("in-size", b"5"),
    ("behind-size", b"5\r\n"),
    ("in-extension", b"5;a"),
    ("in-quotes", b'5;a="b'),
    ("in-data", b"5\r\nabc"),
    ("behind-data", b"5\r\nabcde"),
    ("behind-data-and-cr", b"5\r\nabcde\r"),
    ("without-last-chunk", b"5\r\nabcde\r\n"),
    ("in-last-chunk", b"5\r\nabcde\r\n0"),
    ("behind-last-chunk", b"5\r\nabcde\r\n0\r\n"),
    ("without-last-lf", b"5\r\nabcde\r\n0\r\n\r"),
    ("in-trailers", b"5\r\nabcde\r\n0\r\nX: y\r\n"),
    ("in-a-chunk-of-15-digits", b"f" * 15 + b"\r\nabc"),
)
"""Bodies whose sender goes away."""

_UNFINISHED = [
    RequestCase(f"chunks-unfinished-{name}", "9112 §8", chunked(body), (), closed=True, is_half_closed=True)
    for name, body in UNFINISHED_BODIES
]

REQUESTS: list[RequestCase] = [*_GOOD, *_BAD_SIZES, *_BAD_EXTENSIONS, *_BAD_ENDS, *_UNFINISHED]
