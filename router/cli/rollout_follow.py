"""How a rollout that is waited for is followed to its end, and the exit code that a program gets.

A Redis that does not answer for a while ends nothing: the rollout may well go on, so the waiting does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NoReturn

import click

from router.cli import rollout_view
from router.rollout.progress import ENDS, Progress
from router.rollout.words import span

EXIT_ENDED: Final = 3
"""Published, like those below: rolled back, aborted or superseded."""
EXIT_PAUSED: Final = 4
EXIT_TIMEOUT: Final = 5
EVERY_SECONDS: Final = 1.0
AT_LEAST_EVERY_SECONDS: Final = 300.0
"""A log gets a line so often, even where nothing changes but figures."""

Read = Callable[[], Progress]
"""Raises ``click.ClickException`` while it cannot be asked."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long, and what is shown meanwhile."""

    timeout: float | None = None
    fails_on_pause: bool = False
    is_picture: bool = False
    """The whole screen; else a line whenever something changes."""
    is_json: bool = False
    is_silent: bool = False
    """Nothing but the end."""


def exit_code(progress: Progress) -> int:
    """What a rollout that stands so tells a program."""
    if progress.phase == "succeeded":
        return 0
    if progress.phase in ENDS or progress.phase == "rolling_back":
        return EXIT_ENDED
    return EXIT_PAUSED if progress.phase == "paused" else 0


def is_over(progress: Progress) -> bool:
    return progress.phase in ENDS


def follow(first: Progress, read: Read, waiting: Waiting) -> NoReturn:
    """Wait for the end of this rollout, say how it ended, and end the command with its exit code."""
    until = float("inf") if waiting.timeout is None else time.monotonic() + waiting.timeout
    progress, trouble = first, ""
    code: int | None = None
    read_at = time.monotonic()
    with _showing(waiting) as show:
        while True:
            show(progress, time.monotonic() - read_at)
            if is_over(progress) or (waiting.fails_on_pause and progress.phase == "paused"):
                code = exit_code(progress)
                break
            left = until - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(EVERY_SECONDS, left))
            try:
                found = read()
            except click.ClickException as error:
                if trouble != str(error) and not waiting.is_picture:
                    click.echo(f"{error}; waiting goes on", err=True)
                trouble = str(error)
                continue
            if found.id != first.id:
                break
            progress, read_at, trouble = found, time.monotonic(), ""
    click.echo(as_json(progress) if waiting.is_json else "\n".join(rollout_view.lines(progress)))
    if code is not None:
        raise SystemExit(code)
    if until > time.monotonic():
        click.echo(f"{progress.service} has another rollout now: this one was superseded", err=True)
        raise SystemExit(EXIT_ENDED)
    click.echo(
        f"not over after {span(waiting.timeout or 0)}: the rollout goes on; look again with "
        f"`ring-router rollout status {progress.service}`",
        err=True,
    )
    raise SystemExit(EXIT_TIMEOUT)


@contextmanager
def _showing(waiting: Waiting) -> Iterator[Callable[[Progress, float], None]]:
    if waiting.is_picture:
        from rich.live import Live

        with Live(auto_refresh=False, screen=True) as live:
            yield lambda progress, age: live.update(rollout_view.picture(progress, age), refresh=True)
        return
    last: tuple[object, ...] = ()
    said_at = 0.0

    def say(progress: Progress, _age: float) -> None:
        nonlocal last, said_at
        standings = tuple(gauge.standing for gauge in progress.gauges)
        now = (progress.phase, progress.why, progress.step, standings)
        if now == last and time.monotonic() - said_at < AT_LEAST_EVERY_SECONDS:
            return
        last, said_at = now, time.monotonic()
        if not waiting.is_silent:
            click.echo(as_json(progress) if waiting.is_json else rollout_view.dated(progress))

    yield say


def as_json(progress: Progress) -> str:
    """For programs: ``router.rollout.progress.Progress`` as it is, on one line."""
    import msgspec

    return msgspec.json.encode(progress).decode()
