"""An example for Locust, to be adapted: users of yours, each with an id that stays, through a running router.

    pip install locust        (or the extra [bench], which has it)
    locust -f loadtests/locustfile.py --host http://127.0.0.1:8080 --users 200 --spawn-rate 20

Its figures are those of your pages and your backends; the router's own cost is what `make bench` measures. Each user
notes the ring of the first answer and reports a failure if it changes: that is what to watch while you move weights.
(It may change inward when you widen a ring: set STRICT to False then.)
"""

from __future__ import annotations

import itertools
from typing import Any

from locust import HttpUser, between, task

STRICT = True
numbers = itertools.count()


class Visitor(HttpUser):
    """Somebody who stays: the same id, so the same ring."""

    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        self.client.headers["X-User-Id"] = f"user-{next(numbers)}"
        self.ring: str | None = None

    def visit(self, method: str, path: str, **more: Any) -> None:
        with self.client.request(method, path, catch_response=True, **more) as response:
            ring = response.headers.get("X-Ring")
            if ring is None:
                response.failure("no X-Ring: is `response_headers` off, or is this not the router?")
            elif STRICT and self.ring not in (None, ring):
                response.failure(f"ring changed from {self.ring} to {ring}")
            self.ring = ring

    @task(10)
    def look(self) -> None:
        self.visit("GET", "/")

    @task(1)
    def buy(self) -> None:
        self.visit("POST", "/cart", json={"item": 1})


class Tester(Visitor):
    """Somebody in the canary ring by header; there is one."""

    fixed_count = 1

    def on_start(self) -> None:
        super().on_start()
        self.client.headers["X-Ring"] = "canary"
