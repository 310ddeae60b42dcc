"""``explain`` for every source of a request: what it says of proofs, lists and shares is what the proxy does."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from router.cli.main import main
from router.config.compile import snapshot_spec
from router.config.load import load_settings
from router.core.audience import KeySpec
from router.core.hashing import bucket_of, fingerprint
from router.members.files import TableFile
from router.trust.passes import sign_pass
from router.trust.propagation import write_member
from tests.house import fixed, header, raw_backend, running_plane
from tests.running import running_router
from tests.tokens import RSA, jwk_set, public_jwk, token
from tests.waiting import until_said

SECRET = "a-secret-that-nobody-may-see-0123456789"
KEYS = (KeySpec("a", SECRET),)
FOREVER = 10_000_000_000
CONFIG = """\
trusted_proxies: [TRUSTED]
mode: MODE
signing_keys: [{id: a, secret: "SECRET"}]
tokens: {main: {algorithms: [RS256], keys_file: keys.json}}
services:
  shop:
    hosts: [shop.example.com]
    override: OVERRIDE
    login: LOGIN
    identity:
      - {header: X-Account, trusted: true}
      - header: X-User-Id
      - query: user
      - claim: sub
      - anonymous_cookie: {name: r, signed: true}
    versions:
      v1: {endpoints: [http://127.0.0.1:9001]}
      v2: {endpoints: [http://127.0.0.1:9002]}
    rings:
      - name: canary
        version: v2
        weight: 10
        members: [vip, outcast]
        audience:
          - path: {prefix: /beta}
            method: {one_of: [GET, HEAD]}
            percent: 50
          - client: 192.0.2.0/24
          - claim: {name: tenant, equals: acme}
          - header: {name: X-App, semver: ">=5.2 <6"}
          - time: {from: 2030-01-01T00:00Z, until: 2030-02-01T00:00Z}
          - user: {in_file: users.txt}
          - query: {name: theme, glob: dark-*}
            not: {host: {suffix: .internal}}
        deny:
          - user: {equals: outcast}
      - {name: early, version: v2, weight: 20}
      - {name: everyone, version: v1}
"""


def write(directory: Path, users: str = "alice\n", **changes: str) -> Path:
    words = {"TRUSTED": "10.0.0.0/8", "MODE": "edge", "OVERRIDE": "passes", "LOGIN": "anonymous_first"} | changes
    text = CONFIG.replace("SECRET", SECRET)
    for word, value in words.items():
        text = text.replace(word, value)
    (directory / "users.txt").write_text(users)
    (directory / "keys.json").write_text(jwk_set(public_jwk(RSA)))
    path = directory / "router.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path)


def run(config: Path, *words: str) -> Result:
    done = CliRunner().invoke(main, ["explain", "-c", str(config), "--service", "shop", *words])
    assert done.exit_code == 0, done.output
    return done


def explained(config: Path, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(config, "-o", "json", *words).stdout)
    return found


def ring(config: Path, *words: str) -> tuple[str, str]:
    decision = explained(config, *words)["decision"]
    return decision["ring"], decision["reason"]


def somebody(low: int, high: int) -> str:
    """A user whose bucket is in a range, and whom no list has."""
    return next(name for n in range(10_000) if low <= bucket_of((name := f"user-{n}").encode()) < high)


OUTER = somebody(3000, 10_000)


@pytest.mark.parametrize(
    ("words", "decision"),
    [
        (("--user", OUTER), ("everyone", "default")),
        (("--client", "192.0.2.77"), ("canary", "rule")),
        (("--client", "192.0.3.77"), ("everyone", "default")),
        (("-H", "X-App: 5.10.1"), ("canary", "rule")),
        (("-H", "X-App: 6.0.0"), ("everyone", "default")),
        (("--at", "2030-01-15T12:00:00+02:00"), ("canary", "rule")),
        (("--at", "2030-02-01T00:00Z"), ("everyone", "default")),
        (("--claim", "tenant=globex", "--claim", "tenant=acme"), ("canary", "rule")),
        (("-H", "X-User-Id: alice"), ("canary", "rule")),
        (("--query", "theme=dark-blue"), ("canary", "rule")),
        (("--path", "/?theme=dark-blue"), ("canary", "rule")),
        (("--query", "theme=dark-blue", "--host", "a.internal"), ("everyone", "default")),
        (("-H", "X-User-Id: vip"), ("canary", "member")),
        (("-H", "X-User-Id: outcast"), ("early", "hash")),
    ],
)
def test_every_place_of_a_request_can_be_said(config: Path, words: tuple[str, ...], decision: tuple[str, str]) -> None:
    if words == ("-H", "X-User-Id: outcast"):
        decision = ring(config, "--user", "outcast")
        assert decision[0] != "canary"
    assert ring(config, *words) == decision


def test_a_url_is_host_path_and_query_at_once(config: Path) -> None:
    url = ["explain", "-c", str(config), "-o", "json", "https://shop.example.com:8443/x?user=alice"]
    found = json.loads(CliRunner().invoke(main, url).stdout)
    assert (found["service"], found["key"], found["decision"]["ring"]) == ("shop", "alice", "canary")
    done = CliRunner().invoke(main, [*url, "--host", "a"])
    assert (done.exit_code, "leave out --host" in done.output) == (2, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--at", "tomorrow"), "RFC 3339"),
        (("--at", "2030-01-01T00:00"), "with its offset"),
        (("--claim", "tenant"), "--claim is written NAME=VALUE"),
        (("--certificate", "=x"), "--certificate is written NAME=VALUE"),
    ],
)
def test_words_that_mean_nothing_are_refused(config: Path, words: tuple[str, ...], says: str) -> None:
    done = CliRunner().invoke(main, ["explain", "-c", str(config), *words])
    assert (done.exit_code, says in done.output) == (2, True)


def test_a_source_that_is_not_believed_is_said_so(config: Path) -> None:
    done = run(config, "-H", "X-Account: vip", "-H", "X-User-Id: alice")
    assert "header X-Account is 'vip': it does not count, believed of trusted proxies alone" in done.stdout
    assert "header X-User-Id is 'alice': this is the key" in done.stdout
    assert ring(config, "-H", "X-Account: vip", "--trusted") == ("canary", "member")
    assert "'made-up': it does not count, not signed by this router" in run(config, "--cookie", "r=made-up").stdout


def test_a_denied_member_goes_outward_and_is_told_why(config: Path) -> None:
    done = run(config, "--user", "outcast", "--client", "192.0.2.1")
    assert "deny list of canary: user equals 'outcast': holds: not in canary" in done.stdout
    assert "members: 'outcast' is listed in no ring that does not deny it" in done.stdout
    assert "would match, but canary denies this user" in done.stdout
    inner = next(f"x{n}" for n in range(10_000) if bucket_of(f"x{n}".encode()) < 1000)
    path = write(config.parent)
    path.write_text(path.read_text().replace("equals: outcast", f"equals: {inner}"))
    assert "canary denies this user, who goes outward to early" in run(path, "--user", inner).stdout
    assert ring(path, "--user", inner) == ("early", "hash")


def test_a_share_says_where_the_user_is(config: Path) -> None:
    places = {}
    for n in range(40):
        rule = explained(config, "--user", f"user-{n}", "--path", "/beta")["rules"][0]
        assert (rule["percent"], rule["holds"]) == (50.0, rule["at_percent"] < 50)
        places[rule["holds"]] = n
    assert set(places) == {True, False}
    done = run(config, "--user", f"user-{places[False]}", "--path", "/beta")
    assert "no   one of the first 50.00 % of them (the user is at" in done.stdout
    assert "(nobody is known)" in run(config, "--path", "/beta").stdout


@pytest.mark.parametrize(("mode", "hashed"), [("anonymous_first", "cookie"), ("outer_wins", "outer")])
def test_a_login_says_which_key_is_hashed(tmp_path: Path, mode: str, hashed: str) -> None:
    path = write(tmp_path, LOGIN=mode)
    path.write_text(path.read_text().replace(", signed: true", ""))
    inner = somebody(0, 1000)
    for own, anonymous in ((inner, OUTER), (OUTER, inner)):
        found = explained(path, "--user", own, "--cookie", f"r={anonymous}")
        expected = anonymous if hashed == "cookie" else OUTER
        assert found["login"] == {"mode": mode, "hashed": expected}
        assert found["decision"]["ring"] == ("canary" if expected == inner else "everyone")
        assert f"`login: {mode}` hashes" in run(path, "--user", own, "--cookie", f"r={anonymous}").stdout
    assert explained(path, "--user", inner)["login"] is None


def test_a_long_list_is_read_where_there_is_no_control(tmp_path: Path) -> None:
    path = write(tmp_path, users="".join(f"listed-{n}\n" for n in range(1500)))
    assert ring(path, "--user", "listed-1499") == ("canary", "rule")
    assert ring(path, "--user", OUTER) == ("everyone", "default")
    assert "user is listed in" in run(path, "--user", "listed-7").stdout


PASSES = [
    (sign_pass(KEYS, "shop", "canary", "", FOREVER), "valid"),
    (sign_pass(KEYS, "shop", "canary", "alice", FOREVER), "foreign"),
    (sign_pass(KEYS, "other", "canary", "", FOREVER), "foreign"),
    (sign_pass(KEYS, "shop", "gone", "", FOREVER), "foreign"),
    (sign_pass(KEYS, "shop", "canary", "", 1000), "expired"),
    (sign_pass([KeySpec("a", "another secret of sixteen bytes")], "shop", "canary", "", FOREVER), "forged"),
    ("nonsense", "malformed"),
]


@pytest.mark.parametrize(("word", "verdict"), PASSES, ids=range(len(PASSES)))
def test_a_pass_is_weighed_as_the_proxy_weighs_it(config: Path, word: str, verdict: str) -> None:
    for place in (("--pass", word), ("--cookie", f"ring_pass={word}"), ("--query", f"a=b&ring_pass={word}")):
        found = explained(config, "--user", OUTER, *place)
        (proof,) = found["proofs"]
        assert (proof["kind"], proof["verdict"]) == ("pass", verdict)
        assert found["decision"]["reason"] == ("override" if verdict == "valid" else "default")


@pytest.mark.parametrize(
    ("override", "words", "ring_and_reason", "verdict"),
    [
        ("passes", ("--ring", "canary", "--trusted"), "everyone default", "untrusted"),
        ("trusted", ("--ring", "canary"), "everyone default", "untrusted"),
        ("trusted", ("--ring", "canary", "--trusted"), "canary override", "valid"),
        ("insecure", ("--ring", "canary"), "canary override", "valid"),
        ("insecure", ("--ring", "gone"), "everyone default", "foreign"),
        ("'off'", ("--ring", "canary", "--trusted"), "everyone default", "off"),
    ],
)
def test_an_override_counts_as_the_service_says(
    tmp_path: Path, override: str, words: tuple[str, ...], ring_and_reason: str, verdict: str
) -> None:
    path = write(tmp_path, OVERRIDE=override)
    found = explained(path, "--user", OUTER, *words)
    assert found["proofs"][0]["verdict"] == verdict
    assert " ".join(ring(path, "--user", OUTER, *words)) == ring_and_reason


def test_the_ring_of_the_call_chain_counts_where_it_may(tmp_path: Path) -> None:
    signed = f"baggage: a=b, {write_member(KEYS, 'canary', time.time()).decode()}"
    edge, sidecar = write(tmp_path), tmp_path / "sidecar.yaml"
    default, propagated = ("everyone", "default"), ("canary", "propagated")
    assert ring(edge, "--propagated", "canary", "--trusted") == default
    assert ring(edge, "-H", signed) == default
    assert ring(edge, "--propagated", "canary", "--outbound") == propagated
    sidecar.write_text(edge.read_text().replace("mode: edge", "mode: sidecar"))
    assert ring(sidecar, "--propagated", "canary") == default
    assert ring(sidecar, "--propagated", "canary", "--trusted") == propagated
    assert ring(sidecar, "-H", "X-Ring: canary", "--trusted") == propagated
    assert ring(sidecar, "-H", "X-Ring: canary") == default
    assert ring(sidecar, "-H", signed) == propagated
    assert ring(sidecar, "-H", signed[:-1]) == default
    assert ring(sidecar, "--propagated", "gone", "--trusted") == ("everyone", "propagated")
    said = run(sidecar, "--propagated", "canary").stdout
    assert "propagation: the call chain's ring canary is untrusted" in said


def test_a_token_is_verified_and_its_claims_count(config: Path) -> None:
    claims = {"sub": "alice", "tenant": "acme", "exp": FOREVER}
    good = f"Authorization: Bearer {token(claims, RSA, 'RS256').decode()}"
    found = explained(config, "-H", good)
    assert (found["key"], found["decision"]["reason"]) == ("alice", "rule")
    assert found["proofs"][0]["verdict"] == "valid"
    found = explained(config, "-H", good[:-6] + "AAAAAA")
    assert (found["key"], found["proofs"][0]["verdict"], found["mints"]) == (None, "forged", "r")


def test_what_explain_says_the_proxy_does(tmp_path: Path) -> None:
    """The same requests through a data plane on a socket: overrides, passes, baggage, tokens, lists, logins."""
    good = token({"sub": "alice", "tenant": "acme", "exp": FOREVER}, RSA, "RS256").decode()
    heads: list[list[str]] = [
        [], ["X-User-Id: vip"], ["X-User-Id: outcast"], ["X-Account: vip"], ["X-App: 5.3"], ["X-App: 7"],
        ["Cookie: r=forged"], ["X-Ring-Override: canary"], ["X-Ring: canary"], ["baggage: ring=early"],
        [f"Authorization: Bearer {good}"], [f"Authorization: Bearer {good[:-5]}AAAAA"],
        *[[f"X-Ring-Pass: {word}"] for word, _ in PASSES],
        *[[f"Cookie: ring_pass={word}"] for word, _ in PASSES],
        [f"baggage: {write_member(KEYS, 'canary', time.time()).decode()}"],
        *[[f"X-User-Id: user-{n}"] for n in range(30)],
    ]  # fmt: skip
    targets = ["/", "/beta", "/?theme=dark-x", "/?user=alice&theme=light"]

    async def compare(path: Path, *, is_trusted: bool) -> int:
        compared = 0
        async with raw_backend(fixed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as backend:
            text = await asyncio.to_thread(path.read_text)
            await asyncio.to_thread(path.write_text, text.replace("9001", str(backend)).replace("9002", str(backend)))
            async with running_plane(snapshot_spec(load_settings(path, {}), {}, 1)) as running:
                for lines in heads:
                    for target in targets:
                        request = [f"GET {target} HTTP/1.1", "Host: shop.example.com", *lines, "Connection: close"]
                        answer = await running.ask("\r\n".join([*request, "", ""]).encode())
                        words = [word for line in lines for word in ("-H", line)]
                        trusted = ["--trusted"] if is_trusted else []
                        said = explained(path, "--path", target, "--client", "127.0.0.1", *trusted, *words)
                        if said["mints"] is None:  # else the proxy draws a key that nobody can foresee
                            assert header(answer, "X-Ring") == [said["decision"]["ring"]], (lines, target, said)
                            compared += 1
        return compared

    for mode in ("edge", "sidecar"):
        for proxies, override in (("127.0.0.0/8", "trusted"), ("10.0.0.0/8", "trusted"), ("10.0.0.0/8", "insecure")):
            path = write(tmp_path, MODE=mode, OVERRIDE=override, TRUSTED=proxies)
            compared = asyncio.run(compare(path, is_trusted=proxies == "127.0.0.0/8"))
            assert compared > 100


async def test_the_running_router_tells_no_secret_and_is_explained_with_those_of_its_config(tmp_path: Path) -> None:
    async with running_router(tmp_path, workers=1) as router:
        text = router.config.read_text()
        router.config.write_text(f"signing_keys: [{{id: a, secret: {SECRET}}}]\n{text}")
        await until_said(lambda: router.state()["config"]["revision"] == 2 and router.is_everywhere())
        assert SECRET not in router.get("/api/v1/state").decode()
        assert router.state()["snapshot"]["trust"]["keys"] == [{"id": "a", "secret": "(not shown)"}]
        admin = f"http://127.0.0.1:{router.admin}"

        def live(*words: str) -> dict[str, Any]:
            asked = ["explain", "--live", "--admin", admin, "-o", "json", "--user", OUTER, *words]
            done = CliRunner().invoke(main, asked)
            assert done.exit_code == 0, done.output
            found: dict[str, Any] = json.loads(done.stdout)
            return found

        word = sign_pass(KEYS, "shop", "canary", "", FOREVER)
        found = await asyncio.to_thread(live, "--pass", word)
        assert (found["decision"]["ring"], found["decision"]["reason"]) == ("canary", "override")
        assert any(str(router.config) in note for note in found["notes"])
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(f"GET / HTTP/1.1\r\nHost: a\r\nX-Ring-Pass: {word}\r\nConnection: close\r\n\r\n".encode())
        assert header(await reader.read(), "X-Ring") == ["canary"]
        writer.close()


def test_member_tables_of_this_machine_are_asked_and_others_are_said_to_be_missing(tmp_path: Path) -> None:
    from dataclasses import replace

    import msgspec

    from tests.test_cli_explain import admin

    table = TableFile(tmp_path / "canary.members", 1024)
    table.writer.add(fingerprint(b"somebody"))
    table.publish()
    spec = snapshot_spec(load_settings(write(tmp_path), {}), {}, 1)
    service = spec.services[0]
    for path, told in ((str(tmp_path / "canary.members"), ("canary", "member")), ("/nowhere/t", None)):
        canary = replace(service.rings[0], tables=(path,))
        changed = replace(spec, services=(replace(service, rings=(canary, *service.rings[1:])),))
        with admin({"snapshot": msgspec.to_builtins(changed)}) as url:
            asked = ["explain", "--live", "--admin", url, "-o", "json", "--service", "shop", "--user", "somebody"]
            found = json.loads(CliRunner().invoke(main, asked).stdout)
        if told is not None:
            assert (found["decision"]["ring"], found["decision"]["reason"]) == told
            assert found["tables"] == ["canary"]
        else:
            assert found["decision"]["reason"] != "member"
            assert any("/nowhere/t cannot be read here" in note for note in found["notes"])
    table.close(is_gone=True)
