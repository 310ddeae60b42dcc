"""The config file while the router runs: looked at once a second, taken when it is valid, refused and said when not."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from router.config.files import digest_of, look_at
from router.config.load import ConfigError, Problem, load_settings
from router.config.settings import Settings

FIXED: Final = ("workers", "state_dir", "redis", "instance")
"""Read at the start alone; so are the addresses that are listened on."""


class ConfigFile:
    """``accept`` is called with every new config, after it was noted here as the one in force."""

    def __init__(self, path: Path, settings: Settings, listen: list[str], accept: Callable[[Settings], None]) -> None:
        self.path = path
        self.settings = settings
        self.before: tuple[Settings, str] | None = None
        """The settings before these, and their text."""
        self.at_start = settings
        self.text = _text_of(path, settings)
        """What ``settings`` were made of; empty when that cannot be told any more."""
        self._listen = listen
        self._accept = accept
        self._refused: dict[str, str] = {}
        """Config and files as they were when they were refused."""
        self.error = ""
        self.problems: tuple[Problem, ...] = ()
        self.needs_restart: tuple[str, ...] = ()
        self.reloads: Counter[str] = Counter()
        self.loaded_at = time.time()
        self.revision = 1
        self._log: Any = structlog.get_logger()

    def conflict(self, why: str) -> None:
        """It is valid, and what is live in Redis does not fit to it."""
        self.error = why

    def look(self, *, is_asked: bool) -> str:
        """Take it if it is another one. A sentence about what came of it; empty: nothing did."""
        in_force = self.settings.files.seen
        if look_at(in_force) == in_force:
            return self._unchanged(is_asked=is_asked)
        if self._refused and look_at(self._refused) == self._refused and not is_asked:
            return ""
        try:
            settings = load_settings(self.path, os.environ)
        except ConfigError as error:
            return self._refuse(error, look_at([str(self.path), *error.files]))
        return self._take(settings)

    def try_out(self) -> str:
        """What ``look`` would do, without doing it."""
        in_force = self.settings.files.seen
        if look_at(in_force) == in_force:
            return f"config {self.path} is unchanged"
        try:
            load_settings(self.path, os.environ)
        except ConfigError as error:
            return f"config would be refused, #{self.revision} would stay in force: {error}"
        return f"config #{self.revision + 1} would be in force"

    def _unchanged(self, *, is_asked: bool) -> str:
        said = ""
        if is_asked:
            self.reloads["unchanged"] += 1
            said = f"config {self.path} is unchanged"
            self._log.info(said)
        if self.error:
            said = f"config {self.path} is again the one in force, #{self.revision}"
            self._log.info(said)
        self.error, self.problems, self._refused = "", (), {}
        return said

    def _refuse(self, error: ConfigError, seen: dict[str, str]) -> str:
        said = f"config refused, #{self.revision} stays in force: {error}"
        if seen != self._refused:
            self._refused, self.error, self.problems = seen, str(error), error.problems
            self.reloads["failure"] += 1
            self._log.error(said)
        return said

    def _take(self, settings: Settings) -> str:
        self.before = (self.settings, self.text)
        self.settings = settings
        self.text = _text_of(self.path, settings)
        self._refused, self.error, self.problems = {}, "", ()
        self.reloads["success"] += 1
        self.revision += 1
        self.loaded_at = time.time()
        start = self.at_start
        self.needs_restart = tuple(key for key in FIXED if getattr(start, key) != getattr(settings, key))
        if start.admin.listen != settings.admin.listen:
            self.needs_restart = ("admin.listen", *self.needs_restart)
        if {str(one.address) for one in settings.listen} != set(self._listen):
            self.needs_restart = ("listen", *self.needs_restart)
        self._accept(settings)
        counts = f"services {len(self.before[0].services)} → {len(settings.services)}"
        said = f"config #{self.revision - 1} → #{self.revision} is in force: {counts}"
        self._log.info(said)
        if self.needs_restart:
            self._log.warning(f"only read at the start: {', '.join(self.needs_restart)}; restart to apply the change")
        return said


def _text_of(path: Path, settings: Settings) -> str:
    try:
        raw = path.read_bytes()
        return raw.decode("utf-8-sig") if settings.files.seen.get(str(path)) == digest_of(raw) else ""
    except (OSError, UnicodeDecodeError):
        return ""
