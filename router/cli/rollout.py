"""``ring-router rollout``: start a rollout, look at it, wait for its end, and say what a person wants of it.

It talks to Redis and to nobody else, so it works wherever the config file is, whichever instance leads. What happens
in Redis is in ``router.control.rollouts``; how it reads on a terminal in ``rollout_view``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from router.cli import rollout_view
from router.cli.options import ask_redis, config_option, load_or_exit, output_option, pick_name
from router.cli.rollout_follow import Waiting, as_json, exit_code, follow
from router.cli.weights import Target, redis_in, target_in, target_of

if TYPE_CHECKING:
    from router.control.weights import Client
    from router.rollout.observation import How, Verb
    from router.rollout.progress import Progress

EXITS: Final = """\b
Exit codes:
  0  it succeeded, or it is under way and nobody waited; the wish was done
  1  refused, or nobody could be asked; the message says why
  2  the command line or the config is wrong
  3  it was rolled back, aborted or superseded
  4  it is paused (--wait goes on waiting, unless --fail-on-pause)
  5  --wait took longer than --timeout"""

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """Seconds out of ``90``, ``30m``, ``2h``, as in a config."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from router.config.values import parse_duration

        try:
            return parse_duration(float(value) if str(value).isdecimal() else value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _service_argument(command: _Command) -> _Command:
    return click.argument("service", required=False)(command)


def _reason_option(*, is_required: bool) -> Callable[[_Command], _Command]:
    # With `default=None` click would take None for an answer.
    default: dict[str, Any] = {} if is_required else {"default": ""}
    return click.option(
        "--reason", required=is_required, metavar="TEXT", help="Why; kept in the audit trail.", **default
    )


def _wait_options(command: _Command) -> _Command:
    for option in (
        click.option("--fail-on-pause", is_flag=True, help="With --wait: end with exit code 4 as soon as it pauses."),
        click.option(
            "--timeout", type=Duration(), metavar="DURATION",
            help="With --wait: end with exit code 5 after so long (90s, 2h); the rollout goes on.",
        ),
        click.option("--wait", "is_gate", is_flag=True, help="Wait for its end, and end with its exit code."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(epilog=EXITS)
def rollout() -> None:
    """Walk a version outward ring by ring: wider on proof, back on harm."""


@rollout.command(
    epilog="Example: ring-router rollout start plan.yaml --reason 'v2 is built' --wait --timeout 8h\n\n" + EXITS
)
@click.argument("plan_path", metavar="PLAN.yaml", type=click.Path(path_type=Path))
@_service_argument
@_reason_option(is_required=True)
@click.option("--supersede", is_flag=True, help="End the one that runs; its rings go back to its stable version.")
@_wait_options
@config_option
def start(
    plan_path: Path, service: str | None, reason: str, supersede: bool, is_gate: bool, timeout: float | None,
    fail_on_pause: bool, config_path: Path,
) -> None:  # fmt: skip
    """Begin the rollout that PLAN.yaml describes; of several services in it, SERVICE's."""
    from router.control.authors import at_the_prompt
    from router.control.rollouts import start as begin

    target, plan = _plan(plan_path, service, config_path)
    begun = ask_redis(
        target.url,
        lambda client: begin(client, target.rules, plan, reason=reason, by=at_the_prompt(), supersedes=supersede),
    )
    click.echo("\n".join(rollout_view.lines(begun)))
    if is_gate:
        follow(begun, lambda: _read(target), Waiting(timeout, fail_on_pause))


def _plan(path: Path, service: str | None, config_path: Path) -> tuple[Target, dict[str, Any]]:
    """The service that is meant, and its plan as plain data. Ends the command with all that is wrong with the file."""
    from router.control.rules import service_rules
    from router.rollout.document import PlanError, parse_plans

    settings = load_or_exit(config_path)
    try:
        plans = parse_plans(path.read_text("utf-8"), str(path), service_rules(settings))
    except (OSError, UnicodeError) as error:
        raise click.ClickException(f"{path} cannot be read: {error}") from None
    except PlanError as error:
        raise click.ClickException(str(error)) from None
    name = pick_name([*plans], service)
    return target_in(config_path, settings, name), plans[name]


@rollout.command(epilog="Example: ring-router rollout status shop --wait --timeout 2h\n\n" + EXITS)
@_service_argument
@click.option("-w", "--watch", is_flag=True, help="Show it again whenever it changes, until its end or Ctrl-C.")
@_wait_options
@config_option
@output_option
def status(
    service: str | None, watch: bool, is_gate: bool, timeout: float | None, fail_on_pause: bool, config_path: Path,
    output: str,
) -> None:  # fmt: skip
    """Show where the rollout stands, or how the last one ended, and what is still to be proven."""
    target = target_of(config_path, service)
    progress, is_json = _read(target), output == "json"
    if watch or is_gate:
        is_picture = watch and not is_json and sys.stdout.isatty()
        waiting = Waiting(timeout, fail_on_pause, is_picture, is_json, is_silent=is_json and not watch)
        try:
            follow(progress, lambda: _read(target), waiting)
        except KeyboardInterrupt:
            if is_gate:
                raise
            return
    click.echo(as_json(progress) if is_json else "\n".join(rollout_view.lines(progress)))
    raise SystemExit(exit_code(progress))


def _read(target: Target) -> Progress:
    from router.control.rollouts import read

    found = ask_redis(target.url, lambda client: read(client, target.rules.name))
    if found is None:
        raise click.ClickException(
            f"{target.rules.name} has had no rollout: begin one with `ring-router rollout start PLAN.yaml`"
        )
    return found


def _wish(config_path: Path, service: str | None, verb: Verb, reason: str, how: How = "") -> None:
    """Ask for it, wait until the leader has done it, and say how it stands then."""
    from router.control.authors import at_the_prompt
    from router.control.rollouts import command

    target = target_of(config_path, service)
    progress = ask_redis(
        target.url,
        lambda client: command(client, target.rules, verb, reason=reason, by=at_the_prompt(), how=how),
    )
    click.echo(rollout_view.line(progress))


@rollout.command(epilog="Example: ring-router rollout pause --reason 'the cache is cold'")
@_service_argument
@_reason_option(is_required=True)
@config_option
def pause(service: str | None, reason: str, config_path: Path) -> None:
    """Stand still: weights stay as they are, and harm still goes back."""
    _wish(config_path, service, "pause", reason)


@rollout.command(epilog="Example: ring-router rollout resume --adopt --reason 'canary at 3 % was me'")
@_service_argument
@click.option("--adopt", is_flag=True, help="Go on from the weights that somebody has set meanwhile.")
@click.option("--restore", is_flag=True, help="Put the plan's weights back first.")
@click.option("--accept-unproven", is_flag=True, help="Count the step as done without its proof; the audit says so.")
@_reason_option(is_required=True)
@config_option
def resume(
    service: str | None, adopt: bool, restore: bool, accept_unproven: bool, reason: str, config_path: Path
) -> None:
    """Go on after a pause."""
    known: tuple[tuple[How, bool], ...] = (("adopt", adopt), ("restore", restore), ("accept", accept_unproven))
    ways = [how for how, is_meant in known if is_meant]
    if len(ways) > 1:
        raise click.UsageError("--adopt, --restore and --accept-unproven exclude one another: give one")
    _wish(config_path, service, "resume", reason, ways[0] if ways else "")


@rollout.command(epilog="Example: ring-router rollout approve shop --reason 'support sees nothing'")
@_service_argument
@_reason_option(is_required=True)
@config_option
def approve(service: str | None, reason: str, config_path: Path) -> None:
    """Say yes to leaving a step that waits for approval."""
    _wish(config_path, service, "approve", reason)


@rollout.command(epilog="Example: ring-router rollout promote shop --reason 'a fix for everyone'")
@_service_argument
@_reason_option(is_required=True)
@config_option
def promote(service: str | None, reason: str, config_path: Path) -> None:
    """Take the next step now, proven or not; the audit has what was not."""
    _wish(config_path, service, "promote", reason)


@rollout.command(epilog="Example: ring-router rollout rollback shop")
@_service_argument
@_reason_option(is_required=False)
@config_option
def rollback(service: str | None, reason: str, config_path: Path) -> None:
    """Everybody back to the stable version, at once and without a question."""
    _wish(config_path, service, "rollback", reason)


@rollout.command(epilog="Example: ring-router rollout abort shop --reason 'by hand from here'")
@_service_argument
@_reason_option(is_required=True)
@config_option
def abort(service: str | None, reason: str, config_path: Path) -> None:
    """End it and leave the rings as they are."""
    _wish(config_path, service, "abort", reason)


@rollout.command("list", epilog="Example: ring-router rollout list")
@config_option
@output_option
def list_(config_path: Path, output: str) -> None:
    """One line per service: its rollout, or its last one."""
    from router.control.rollouts import read

    settings = load_or_exit(config_path)
    names = [*settings.services]

    async def ask(client: Client) -> list[Progress | None]:
        return [await read(client, name) for name in names]

    found = ask_redis(redis_in(config_path, settings), ask)
    if output == "json":
        click.echo("[" + ",".join(as_json(progress) for progress in found if progress is not None) + "]")
        return
    for name, progress in zip(names, found, strict=True):
        click.echo(f"{name}: no rollout" if progress is None else rollout_view.line(progress))


@rollout.command(epilog="Example: ring-router rollout report shop --verify -o markdown > report.md")
@_service_argument
@click.option("--verify", is_flag=True, help="Work every verdict out again from the counts that were kept; 1: differs.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json", "markdown"]), default="text", show_default=True,
    help="Text for people, JSON for programs, Markdown to keep.",
)  # fmt: skip
@config_option
def report(service: str | None, verify: bool, output: str, config_path: Path) -> None:
    """Say what was decided and on what evidence, of the rollout that runs or the last one."""
    from router.control.recount import verify as work_out_again
    from router.rollout.report import markdown

    target = target_of(config_path, service)
    progress = _read(target)
    differences = ask_redis(target.url, lambda client: work_out_again(client, target.rules)) if verify else None
    click.echo(as_json(progress) if output == "json" else markdown(progress).rstrip())
    if differences is None:
        return
    for sentence in differences:
        click.echo(f"differs: {sentence}", err=True)
    if differences:
        raise SystemExit(1)
    click.echo("verified: every verdict and transition comes out the same from the counts that were kept", err=True)


@rollout.command(epilog="Example: ring-router rollout simulate plan.yaml shop")
@click.argument("plan_path", metavar="PLAN.yaml", type=click.Path(path_type=Path))
@_service_argument
@config_option
@output_option
def simulate(plan_path: Path, service: str | None, config_path: Path, output: str) -> None:
    """Say from the traffic of the last five minutes how long each step will probably need. Nothing is changed."""
    from dataclasses import asdict

    from router.control.traffic import traffic_now
    from router.rollout.document import to_plan
    from router.rollout.simulation import foresee

    target, plain = _plan(plan_path, service, config_path)
    plan = to_plan(target.rules.name, plain, target.rules)
    traffic, rings = ask_redis(target.url, lambda client: traffic_now(client, target.rules, plan.stable, time.time()))
    steps = foresee(plan, rings, traffic)
    if output == "json":
        said = {"service": plan.service, "requests_per_second": traffic.requests_per_second, "people": traffic.people}
        click.echo(json.dumps(said | {"steps": [asdict(step) for step in steps]}, ensure_ascii=False))
        return
    people = "people are not counted" if traffic.people is None else f"about {traffic.people:,} people in two days"
    click.echo(f"{plan.service}: {traffic.requests_per_second:,.1f} requests/s now, {people}")
    for number, step in enumerate(steps, 1):
        click.echo(f"  {number} {step.sentence}")
        if step.ring_users is not None and step.control_users is not None:
            click.echo(
                f"    in a bake: {step.ring_users:,} users with {plan.candidate}, {step.control_users:,} without"
            )
    if plan.budget is not None:
        click.echo("The risk budget decides the weights as it goes: these steps are where the plan would go.")
    click.echo(f"If {plan.candidate} is as good as {plan.stable} is now, and people come as they do now.")
