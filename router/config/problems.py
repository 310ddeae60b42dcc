"""What is wrong with a config file, said so that a person can mend it: where, what, and how.

Pure text: nothing here reads a file or ends a process. A source line is shown without the passwords that stand in it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_URL_PASSWORD: Final = re.compile(r"(?<=://)([^\s/@:'\"]*):([^\s@]+)(?=@)")
_QUERY_PASSWORD: Final = re.compile(r"(?<=[?&])((?:ssl_|sentinel_)?password)=[^&\s'\"]+")
_SECRET: Final = re.compile(r"(secret['\"]?\s*:\s*)(\"[^\"]*\"?|'[^']*'?|[^\s,}]+)")
"""In a file that is no YAML (yet) nothing else is known of a line."""
_SHOWN_COLUMNS: Final = 160
"""A longer source line is cut around the place: one file on one line must not flood the terminal."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the config. ``line`` and ``column`` count from 1; 0 means the file as a whole."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    source_line: str = ""

    def render(self) -> str:
        """``file:line:column: message (hint)``, and below it the source line with a caret under the place."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        head = f"{place}: {self.message}" + (f" ({self.hint})" if self.hint else "")
        if not self.source_line.strip():
            return head
        shown = hidden_line(self.source_line)
        start = max(0, self.column - 1 - _SHOWN_COLUMNS // 2) if len(shown) > _SHOWN_COLUMNS else 0
        before = shown[start : self.column - 1]
        padding = "".join("\t" if character == "\t" else " " for character in before)
        return f"{head}\n    {shown[start : start + _SHOWN_COLUMNS]}\n    {padding}^"


class ConfigError(Exception):
    """The config is refused as a whole. ``problems`` holds all that is wrong with it, in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...], files: tuple[str, ...] = ()) -> None:
        super().__init__(problems)
        self.problems = problems
        self.files = files
        """Files that the config names: mending one of them may mend the config."""

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [problem.render() for problem in self.problems]
        return "\n".join([*lines, f"{count} problem{'s' if count != 1 else ''} found; the config was not accepted."])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the closest known word, "" if none is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""


def hidden_line(line: str) -> str:
    """A line of the file without its secrets, as long as before, so that a caret still stands where it should."""
    shown = _URL_PASSWORD.sub(lambda found: f"{found[1]}:{'*' * len(found[2])}", line)
    shown = _QUERY_PASSWORD.sub(lambda found: found[1] + "=" + "*" * (len(found[0]) - len(found[1]) - 1), shown)
    return _SECRET.sub(lambda found: found[1] + "*" * len(found[2]), shown)


def redacted_url(url: str) -> str:
    """A URL fit to be logged: the password is ``***``."""
    hidden = _URL_PASSWORD.sub(lambda found: f"{found[1]}:***", url)
    return _QUERY_PASSWORD.sub(lambda found: f"{found[1]}=***", hidden)
