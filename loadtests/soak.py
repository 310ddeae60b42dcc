"""A week in miniature: a million mixed requests through a whole router, every one accounted for, nothing leaked.

Two workers. Half of the requests have bodies; some are malformed, some for nobody, some clients leave in the middle,
some speak WebSocket. What the clients counted is held against /metrics; memory is sampled all the time, and open files
before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from loadtests import contestants, exposed, report
from loadtests.rig import HOST, LOAD_CORE, ROOT, Rig, RigError, fetch, free_ports, python_module, say_cores
from loadtests.soak_plan import HOST as SERVED_HOST
from router.core.spec import ConnectionsSpec

WORKERS: Final = 2
SAMPLE_SECONDS: Final = 1.0
SCRAPE_EVERY: Final = 5
"""Samples; /metrics is read as Prometheus would."""
SAY_SECONDS: Final = 20.0
WARM_SHARE: Final = 0.2
"""Of the requests; what memory grows by until then is not counted: caches fill, arenas are laid out."""
SHOWN_SHARES: Final = (0.1, 0.5, 1.0)
SLOPE_UNIT: Final = 100_000
LONG_RUN: Final = 200_000
"""With fewer requests the slope of memory says nothing, and is not judged."""
MOST_KIB: Final = 512.0
"""A process may grow by so much in 100,000 requests: 4 MiB from the first fifth of a million to its end."""
KEPT_SAMPLES: Final = 60
CLIENT_GONE: Final = "499"
NEVER_ACCEPTED: Final = "client_gone"
LARGEST_BODY: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """Resident bytes of each process, by its name, when so many requests had begun."""

    seconds: float
    requests: int
    rss: dict[str, int]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=64, help="clients at a time, each waits for its answer")
    parser.add_argument("--seed", type=int, default=1, help="of what the clients do")
    parser.add_argument("--limit-seconds", type=float, default=1800, help="a run that takes longer has failed")
    parser.add_argument("--dry", action="store_true", help="write no result")
    asked = parser.parse_args()
    if asked.requests < 1 or asked.connections < 1:
        parser.error("--requests and --connections are above 0")
    return asked


# -- the run -----------------------------------------------------------------------------------------------------------


def start(rig: Rig) -> contestants.Contestant:
    """One backend behind both versions: what an answer looks like follows from the request."""
    (port,) = free_ports(1)
    rig.start("backend", python_module("loadtests.peers.soak_backend", port), LOAD_CORE, f"http://{HOST}:{port}/")
    shop = contestants.service([port], [port], hosts=[SERVED_HOST.decode()])
    router = contestants.start_router(rig, {"shop": shop}, workers=WORKERS)
    exposed.await_ready(router.admin)
    router.child.settle()
    return router


def named(router: contestants.Contestant) -> dict[int, str]:
    """Every process of the router."""
    workers = sorted(one["pid"] for one in exposed.state_of(router.admin)["workers"])
    names = {router.child.process.pid: "parent"} | {pid: f"worker {n}" for n, pid in enumerate(workers, 1)}
    return {pid: names.get(pid, "control") for pid in router.child.pids}


def open_files(names: dict[int, str]) -> dict[str, int]:
    try:
        return {name: len(os.listdir(f"/proc/{pid}/fd")) for pid, name in names.items()}
    except OSError:
        raise RigError("a process of the router died during the run") from None


def leaked(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """How many files more are open, of the processes that have more."""
    return {name: after[name] - count for name, count in before.items() if after[name] > count}


def load(router: contestants.Contestant, rig: Rig, asked: argparse.Namespace) -> Iterator[Sample | dict[str, Any]]:
    """Run the clients: a sample each second, and at the end what they counted."""
    progress = rig.write("progress", "0")
    command = python_module("loadtests.soak_load", router.port, "--requests", asked.requests)
    command += ["--connections", f"{asked.connections}", "--seed", f"{asked.seed}", "--progress", f"{progress}"]
    names = named(router)
    began = time.monotonic()
    out, err = rig.directory / "clients.out", rig.directory / "clients.err"
    with out.open("wb") as found, err.open("wb") as said, running(command, found, said) as process:
        number = 0
        while process.poll() is None:
            now = time.monotonic() - began
            if now > asked.limit_seconds:
                raise RigError(f"not done after {asked.limit_seconds:g} s: {progress.read_text()} requests")
            rss = {names[pid]: size for pid, size in router.child.rss_bytes().items()}
            yield Sample(now, int(progress.read_text() or 0), rss)
            if number % SCRAPE_EVERY == 0:
                fetch(f"http://{HOST}:{router.admin}/metrics")
            number += 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SAMPLE_SECONDS)
        seconds = time.monotonic() - began
    if process.returncode:
        raise RigError((err.read_text().strip().splitlines() or ["the clients failed"])[-1])
    rss = {names[pid]: size for pid, size in router.child.rss_bytes().items()}
    clients: dict[str, Any] = json.loads(out.read_text())
    yield Sample(seconds, clients["requests"], rss)
    yield clients | {"seconds": seconds}


@contextlib.contextmanager
def running(command: Sequence[str], out: Any, err: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The clients, on the load core; ended with the block."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    samples: list[Sample] = []
    clients: dict[str, Any] = {}
    with Rig() as rig:
        router = start(rig)
        names = named(router)
        time.sleep(SAMPLE_SECONDS)  # until the questions asked so far are no open connections any more
        before = open_files(names)
        said = 0.0
        for one in load(router, rig, asked):
            if isinstance(one, dict):
                clients = one
                break
            samples.append(one)
            if one.seconds >= said + SAY_SECONDS:
                said = one.seconds
                rss = ", ".join(f"{name} {size / 2**20:.1f}" for name, size in one.rss.items())
                print(f"{one.seconds:4.0f} s  {one.requests:9,} requests  MiB: {rss}", flush=True)
        metrics = exposed.settled(router.admin)
        with contextlib.suppress(RigError):  # what is still open then is a leak, and is reported as one
            exposed.await_that(
                lambda: not leaked(before, open_files(names)), "files are closed", 3 * ConnectionsSpec().idle
            )
        after = open_files(names)
        is_whole = named(router) == names
    ledger = accounts(clients, metrics)
    files = {name: {"before": before[name], "after": after[name]} for name in before}
    memory = {name: memory_of(samples, name) for name in before}
    return {
        "summary": {
            "requests": clients["requests"],
            "seconds": clients["seconds"],
            "requests_per_s": clients["requests"] / clients["seconds"],
            "with_body_percent": 100 * clients["with_body"] / clients["requests"],
            "wrong": clients["wrong"],
            "accounts": ledger,
            "memory": memory,
            "open_files": files,
            "problems": problems(clients, ledger, memory, files, is_whole),
        },
        "clients": clients,
        "samples": [vars_of(one) for one in samples[:: 1 + len(samples) // KEPT_SAMPLES]],
    }


def vars_of(sample: Sample) -> dict[str, Any]:
    return {"seconds": sample.seconds, "requests": sample.requests, "rss": sample.rss}


# -- what came of it ---------------------------------------------------------------------------------------------------


def accounts(clients: dict[str, Any], metrics: exposed.Exposed) -> dict[str, dict[str, int]]:
    """What the clients saw against what the router counted: as many of each, or a request is lost or counted twice.

    A client that leaves during a download has seen a 200, one that leaves before it an answer nobody got: 499. A
    malformed body is found before its request is sent on, or after: then it counts as the ring's 400.
    """
    seen = Counter(clients["statuses"])
    refused, left = Counter(clients["refused"]), Counter(clients["left"])
    seen["200"] += left["leave_download"]
    seen[CLIENT_GONE] += left["leave_upload"] + left["leave_waiting"]
    codes = Counter(metrics.by("requests_total", "code"))
    answers = Counter(metrics.by("router_answers_total", "word"))
    # Gone before the router could accept them: it has counted them, and never read a byte of what they sent.
    unread = answers.pop(NEVER_ACCEPTED, 0)
    codes[CLIENT_GONE] += unread
    found = {
        f"status {code}": {"clients": seen[code], "router": codes[code]}
        for code in sorted((seen | codes).keys() - {"400"})
    }
    found["refused 400"] = {"clients": refused["400"] + seen["400"], "router": answers["bad_request"] + codes["400"]}
    found["refused 404"] = {"clients": refused["404"], "router": answers["no_service"]}
    others = refused.keys() - {"400", "404"}
    found["refused otherwise"] = {
        "clients": sum(refused[status] for status in others),
        "router": sum(count for word, count in answers.items() if word not in ("bad_request", "no_service")),
    }
    found["all requests"] = {"clients": clients["requests"], "router": codes.total() + answers.total()}
    found["clients that left"] = {"clients": left.total(), "router": metrics.total("client_aborts_total") + unread}
    found["bytes of request bodies"] = {
        "clients": clients["uploaded_bytes"],
        "router": metrics.total("request_bytes_total"),
        "unread": unread * LARGEST_BODY,
    }
    found["bytes of response bodies"] = {
        "clients": clients["downloaded_bytes"], "router": metrics.total("response_bytes_total")
    }  # fmt: skip
    found["still in flight"] = {"clients": 0, "router": metrics.total("requests_in_flight")}
    return found


def is_equal(account: dict[str, int]) -> bool:
    """To the byte, but for what the router cannot know: the bodies of clients that it could not accept any more."""
    return 0 <= account["clients"] - account["router"] <= account.get("unread", 0)


def memory_of(samples: Sequence[Sample], name: str) -> dict[str, Any]:
    """Resident memory of a process on its way, and how fast it grew once warm (least squares)."""
    last = samples[-1].requests
    shown = {
        f"mib_at_{share:.0%}": min(samples, key=lambda one: abs(one.requests - share * last)).rss[name] / 2**20
        for share in SHOWN_SHARES
    }
    warm = [one for one in samples if one.requests >= WARM_SHARE * last]
    slope = 0.0
    if len({one.requests for one in warm}) > 1:
        slope, _ = statistics.linear_regression([one.requests for one in warm], [one.rss[name] for one in warm])
    return shown | {"kib_per_100000": slope * SLOPE_UNIT / 1024, "most_mib": max(s.rss[name] for s in samples) / 2**20}


def problems(
    clients: dict[str, Any],
    ledger: dict[str, dict[str, int]],
    memory: dict[str, dict[str, Any]],
    files: dict[str, dict[str, int]],
    is_whole: bool,
) -> list[str]:
    """Everything that must not be, in words."""
    found = [f"{clients['wrong']} wrong answers: {clients['wrong_examples'][:3]}"] if clients["wrong"] else []
    found += [
        f"{what}: clients {one['clients']:,}, router {one['router']:,}"
        for what, one in ledger.items()
        if not is_equal(one)
    ]
    before, after = ({name: one[when] for name, one in files.items()} for when in ("before", "after"))
    found += [f"{name} has {count} open files more than before" for name, count in leaked(before, after).items()]
    if clients["requests"] >= LONG_RUN:
        found += [
            f"{name} grows by {one['kib_per_100000']:.0f} KiB in 100,000 requests"
            for name, one in memory.items()
            if one["kib_per_100000"] > MOST_KIB
        ]
    return found if is_whole else [*found, "a process of the router was started again"]


def show(found: dict[str, Any]) -> None:
    print(
        f"\n{found['requests']:,} requests in {found['seconds']:.0f} s ({found['requests_per_s']:,.0f}/s), "
        f"{found['with_body_percent']:.0f} % with bodies, {found['wrong']} wrong answers.\n"
    )
    rows = [
        [what, f"{one['clients']:,}", f"{one['router']:,}", "" if is_equal(one) else "DIFFERS"]
        for what, one in found["accounts"].items()
    ]
    report.table(["", "clients", "router", ""], rows)
    print()
    rows = [
        [name, *(f"{one[f'mib_at_{share:.0%}']:.1f}" for share in SHOWN_SHARES), f"{one['kib_per_100000']:.0f}",
         *(f"{found['open_files'][name][when]}" for when in ("before", "after"))]
        for name, one in found["memory"].items()
    ]  # fmt: skip
    head = ["process", *(f"MiB at {share:.0%}" for share in SHOWN_SHARES), "KiB per 100,000", "files before", "after"]
    report.table(head, rows)
    for problem in found["problems"]:
        print(f"\nPROBLEM: {problem}")


def main() -> None:
    asked = options()
    say_cores()
    found = measure(asked)
    show(found["summary"])
    if not asked.dry:
        report.save("soak", asked, found)
    if found["summary"]["problems"]:
        sys.exit(1)


if __name__ == "__main__":
    report.run(main)
