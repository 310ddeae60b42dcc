"""What the commands share: where the config file is, how to print, and how to ask the running router.

It ends a command with one clear sentence and an exit code (2: the config is invalid or cannot be found), never with a
traceback. It never writes anything but words, and it asks nobody but the admin address and the Redis it was given.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

if TYPE_CHECKING:  # pydantic takes 0.2 s to import; a command that needs no config must not pay for it
    from router.config.settings import Service, Settings
    from router.control.weights import Client
    from router.core.spec import SnapshotSpec

CONFIG_VARIABLE: Final = "RING_ROUTER_CONFIG"
ADMIN_VARIABLE: Final = "RING_ROUTER_ADMIN"
TOKEN_VARIABLE: Final = "RING_ROUTER_TOKEN"  # noqa: S105 - a name
"""Its value, not its digest: what `ring-router token` printed first."""
DEFAULT_CONFIG: Final = Path("config/router.yaml")
DEFAULT_ADMIN: Final = "http://127.0.0.1:9900"
ADMIN_TIMEOUT_SECONDS: Final = 2.0
"""An admin address on loopback answers in milliseconds; a person waits two seconds before wondering."""
EXIT_INVALID_CONFIG: Final = 2
"""Published: "config invalid, do not restart" (systemd's RestartPreventExitStatus=2)."""

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Result = TypeVar("_Result")


class ConfigNotFound(click.ClickException):
    """No config file anywhere; the message names the remedies."""

    exit_code = EXIT_INVALID_CONFIG


class AdminUnreachable(click.ClickException):
    """The running router did not answer as it should; the message names the remedy."""


def find_config(explicit: Path | None = None, admin_url: str | None = None) -> Path:
    """The config file: as given, else $RING_ROUTER_CONFIG, else the running router's own, else ./config/router.yaml.

    The running router comes before the file in this directory: who types a word beside it means it.
    A file that was named is returned as it is, existing or not: the loader says what is wrong with it.
    """
    if explicit is not None:
        return explicit
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    asked = admin_url or os.environ.get(ADMIN_VARIABLE) or DEFAULT_ADMIN
    try:
        running = fetch_state(asked).get("config_path")
    except AdminUnreachable:
        running = None
    if isinstance(running, str) and running:
        return Path(running)
    if DEFAULT_CONFIG.is_file():
        return DEFAULT_CONFIG
    raise ConfigNotFound(
        f"no config file: there is no ./{DEFAULT_CONFIG}, and no running router to ask for its own.\n"
        f"Any of these helps:\n"
        f"  - give it:      -c /etc/ring-router/router.yaml\n"
        f"  - set it once:  export {CONFIG_VARIABLE}=/etc/ring-router/router.yaml\n"
        f"  - be where ./{DEFAULT_CONFIG} is, or start the router on this machine (asked at {asked})"
    )


def _find(context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    return None if context.resilient_parsing else find_config(value, os.environ.get("RING_ROUTER_ADMIN"))


_CONFIG_HELP: Final = (
    f"The config file [default: ${CONFIG_VARIABLE}, else the running router's, else ./{DEFAULT_CONFIG}]."
)


def config_option(command: _Command) -> _Command:
    """``-c/--config``: passes a ``config_path: Path`` that has been looked for (``find_config``)."""
    return click.option(
        "-c", "--config", "config_path", envvar=CONFIG_VARIABLE, metavar="FILE", callback=_find, help=_CONFIG_HELP,
        type=click.Path(path_type=Path),
    )(command)  # fmt: skip


def optional_config_option(command: _Command) -> _Command:
    """``-c/--config`` for commands that can do without: passes ``config_path: Path | None`` as it was given."""
    return click.option(
        "-c", "--config", "config_path", envvar=CONFIG_VARIABLE, metavar="FILE", help=_CONFIG_HELP,
        type=click.Path(path_type=Path),
    )(command)  # fmt: skip


def output_option(command: _Command) -> _Command:
    """``-o/--output``: passes ``output: str``, "text" or "json"."""
    return click.option(
        "-o", "--output", "output", type=click.Choice(["text", "json"]), default="text", show_default=True,
        help="Text for people, JSON for programs.",
    )(command)  # fmt: skip


def admin_option(command: _Command) -> _Command:
    """``--admin``: passes ``admin_url: str``, the admin address of the running router."""
    return click.option(
        "--admin", "admin_url", envvar=ADMIN_VARIABLE, default=DEFAULT_ADMIN, show_default=True, metavar="URL",
        help="Admin address of the running router.",
    )(command)  # fmt: skip


def load_or_exit(path: Path, env: Mapping[str, str] | None = None) -> Settings:
    """The settings of a config file; or every problem with it on stderr, and exit 2."""
    from router.config.load import ConfigError, load_settings

    try:
        return load_settings(path, env)
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(EXIT_INVALID_CONFIG) from None


def pick_name(names: list[str], name: str | None) -> str:
    """The wanted one of some service names; the only one if none is wanted. Ends the command if that is not clear."""
    if name is None:
        if len(names) == 1:
            return names[0]
        _refuse(f"there are {len(names)} services: name the one you mean ({', '.join(names)})")
    if name not in names:
        _refuse(f"there is no service {name!r}; there is: {', '.join(names)}")
    return name


def pick_service(settings: Settings, name: str | None) -> tuple[str, Service]:
    """Name and settings of the wanted service; the only service if none is wanted."""
    chosen = pick_name(list(settings.services), name)
    return chosen, settings.services[chosen]


def ask_redis(url: str, question: Callable[[Client], Awaitable[_Result]]) -> _Result:
    """Ask Redis; a refusal or an unreachable Redis is one sentence and exit code 1."""
    import asyncio

    from router.control.weights import Refused, Unreachable, open_redis

    async def asking() -> _Result:
        async with open_redis(url) as client:
            return await question(client)

    try:
        return asyncio.run(asking())
    except (Refused, Unreachable) as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def admin_response(admin_url: str, target: str, timeout: float = ADMIN_TIMEOUT_SECONDS) -> Iterator[HTTPResponse]:
    """``GET`` of the running router's admin side. Raises ``AdminUnreachable``, which names the remedy; a refusal is an
    ``HTTPError``.
    """
    url = (admin_url if "://" in admin_url else f"http://{admin_url}").rstrip("/") + target
    if not url.startswith(("http://", "https://")):  # urllib would open file:// as well
        raise AdminUnreachable(f"{admin_url} is not an HTTP address: use --admin {DEFAULT_ADMIN}")
    # Never through a proxy from the environment: the admin side is on loopback or in the same network.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        response: HTTPResponse = opener.open(_asking(url), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.UNAUTHORIZED:
            raise AdminUnreachable(
                f"{url} wants a token: put one of `admin.tokens` into {TOKEN_VARIABLE} (`ring-router token` makes one)"
            ) from None
        raise
    except (OSError, HTTPException, ValueError) as error:
        raise _unreachable(url, error) from None
    with response:
        yield response


def reason_in(error: urllib.error.HTTPError) -> str:
    """Why the admin side refuses: its own sentence (RFC 9457), or what the status says."""
    try:
        problem = json.loads(error.read(64 * 1024))
        return str(problem["detail"])
    except (OSError, HTTPException, ValueError, TypeError, KeyError):
        return f"{error.code} {error.reason}"


def _unreachable(url: str, error: Exception) -> AdminUnreachable:
    why = getattr(error, "reason", None) or str(error) or type(error).__name__
    return AdminUnreachable(
        f"no router answers at {url} ({why}): start it with `ring-router run`, "
        f"or give the `admin.listen` address of its config with --admin"
    )


def fetch(path: str, admin_url: str = DEFAULT_ADMIN) -> dict[str, Any]:
    """``GET {admin}/api/v1{path}`` of the running router. Raises ``AdminUnreachable``, which names the remedy."""
    try:
        with admin_response(admin_url, f"/api/v1{path}") as response:
            said = json.load(response)
    except urllib.error.HTTPError as error:
        if error.headers.get_content_type() == "application/problem+json":
            raise AdminUnreachable(f"the router at {admin_url} refuses: {reason_in(error)}") from None
        raise AdminUnreachable(
            f"{error.url} answered {error.code} {error.reason}: is that the router's admin address?"
        ) from None
    except (OSError, HTTPException, ValueError) as error:
        raise _unreachable(admin_url, error) from None
    if not isinstance(said, dict):
        raise AdminUnreachable(f"{admin_url} did not answer with a JSON object: is that the router's admin address?")
    return said


def fetch_state(admin_url: str = DEFAULT_ADMIN) -> dict[str, Any]:
    """``/api/v1/state``. Raises ``AdminUnreachable``, which names the remedy."""
    return fetch("/state", admin_url)


def _asking(url: str) -> urllib.request.Request:
    """A request with the token of the environment, if there is one."""
    token = os.environ.get(TOKEN_VARIABLE)
    return urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})


def snapshot_in(state: Mapping[str, Any], admin_url: str) -> SnapshotSpec:
    """The snapshot in an admin side's state. Raises ``AdminUnreachable``, which names the remedy."""
    import msgspec

    from router.core.spec import SnapshotSpec

    snapshot = state.get("snapshot")
    if snapshot is None:
        raise AdminUnreachable(f"the router at {admin_url} has no snapshot yet: look at its log for a refused config")
    try:
        return msgspec.convert(snapshot, SnapshotSpec)
    except msgspec.ValidationError as error:
        raise AdminUnreachable(
            f"the router at {admin_url} describes its snapshot differently ({error}): use its own ring-router command"
        ) from None


def running_snapshot(admin_url: str = DEFAULT_ADMIN) -> SnapshotSpec:
    """The snapshot the running router uses now, without its secrets. Raises ``AdminUnreachable``."""
    return snapshot_in(fetch_state(admin_url), admin_url)


def redis_of(config_path: Path | None, *, live: bool, admin_url: str) -> str | None:
    """The Redis of the same config as in ``snapshot_of``, if there is one and it can be read here."""
    from router.config.load import ConfigError, load_settings

    try:
        if live:
            named = fetch_state(admin_url).get("config_path")
            return load_settings(Path(named)).redis if isinstance(named, str) and named else None
        return load_settings(find_config(config_path, admin_url)).redis
    except (ConfigError, ConfigNotFound, AdminUnreachable):
        return None


def live_option(command: _Command) -> _Command:
    """``--live``: passes ``live: bool``."""
    return click.option(
        "--live", is_flag=True, help="Ask the running router for its weights instead of reading the config file."
    )(command)


def _refuse(message: str) -> NoReturn:
    raise click.UsageError(message)


def check_ring(ring: str, rings: Sequence[str], service: str) -> None:
    """Ends the command if the service has no ring of this name."""
    from router.config.problems import did_you_mean

    if ring not in rings:
        hint = did_you_mean(ring, rings) or f"there is: {', '.join(rings)}"
        raise click.UsageError(f"there is no ring {ring!r} in {service}: {hint}")
