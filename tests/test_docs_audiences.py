"""docs/audiences.md: its recipes are valid, and put those into the rings whom they say they do."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from router.config.compile import snapshot_spec
from router.config.load import load_settings
from router.core.decide import decide, identify
from router.core.request import Request
from router.core.snapshot import Service, Snapshot

DOCS = Path(__file__).parent.parent / "docs" / "audiences.md"
HEAD = {
    "tokens": {"corp": {"algorithms": ["HS256"], "secret": "a secret of the issuer's, longer than a hash"}},
    "services": {
        "shop": {
            "identity": [{"header": "X-User-Id"}],
            "versions": {"v1": {"endpoints": ["http://127.0.0.1:1"]}, "v2": {"endpoints": ["http://127.0.0.1:2"]}},
        }
    },
}


def shop(directory: Path) -> Service:
    recipe = re.search(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert recipe is not None
    config = {**HEAD}
    config["services"]["shop"]["rings"] = yaml.safe_load(recipe[1])["rings"]  # type: ignore[index]
    (directory / "lists").mkdir()
    (directory / "lists" / "beta.txt").write_text("# beta\nalice\n")
    (directory / "router.yaml").write_text(yaml.safe_dump(config))
    return Snapshot(snapshot_spec(load_settings(directory / "router.yaml", {}), {}, 1)).services[0]


def ring(service: Service, user: str = "victor", client: str = "203.0.113.9", **said: str) -> str:
    headers = {b"x-user-id": user.encode()}
    request = Request(b"shop", b"/", headers)
    request.client = client.encode()
    for name, value in said.items():
        if name in ("groups", "tenant"):
            request.claims = {**request.claims, name: (value.encode(),)}
        else:
            headers[name.replace("_", "-").encode()] = value.encode()
    return decide(service, request, identify(service, request)).ring


def test_the_recipes_do_what_they_say(tmp_path: Path) -> None:
    service = shop(tmp_path)
    assert service.needs >= {"client", "claims"}
    assert ring(service) == "everyone"
    assert ring(service, groups="staff") == "staff"
    assert ring(service, client="10.20.3.4") == "staff"
    assert ring(service, user="alice") == "beta"
    assert ring(service, user="alice", tenant="bank") == "everyone"
    assert ring(service, tenant="acme") == "beta"
    assert ring(service, x_app_version="5.10.1") == "beta"
    assert ring(service, x_app_version="5.1") == "everyone"
    from_there = [ring(service, user=f"user-{number}", x_country="nz") for number in range(400)]
    assert 120 < from_there.count("beta") < 280  # half of them: eight standard deviations
    assert set(from_there) == {"beta", "everyone"}
