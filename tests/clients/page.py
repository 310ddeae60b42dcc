"""A page for a browser: a hundred subresources of five kinds, and a script that counts what has arrived.

A headless browser shows the DOM after the page's ``load`` event, and that waits for an image that the server holds back
until the script has said that it is done.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from aiohttp import web

from tests.clients.house import Seen, Serve
from tests.clients.website import recording, site

EACH = 20
KINDS = ("image", "style", "script", "data", "frame")
GIVE_UP_SECONDS = 20

PAGE = """<!DOCTYPE html><html><head><title>loading</title><link rel="icon" href="data:,">%(head)s
<script>
const arrived = {image: 0, style: 0, script: 0, data: 0, frame: 0};
async function fetched(n) {
  const answer = await (await fetch("/data/" + n)).json();
  if (answer.n === n) arrived.data += 1;
}
async function talked() {
  return await new Promise((resolve, reject) => {
    const chat = new WebSocket("ws://" + location.host + "/chat");
    chat.onerror = () => reject("no WebSocket");
    chat.onopen = () => chat.send("hello");
    chat.onmessage = (message) => { resolve(message.data); chat.close(); };
  });
}
async function listened() {
  return await new Promise((resolve, reject) => {
    const events = new EventSource("/events"), heard = [];
    events.onerror = () => reject("no events");
    events.onmessage = async (event) => {
      heard.push(event.data);
      if (event.data === "last") { events.close(); resolve(heard.join(" ")); }
      else await fetch("/ack", {method: "POST"});
    };
  });
}
async function work() {
  %(work)s
}
addEventListener("DOMContentLoaded", () => {
  work().then((said) => said, (error) => "failed: " + error).then((said) => {
    document.getElementById("result").textContent = said;
    return fetch("/done", {method: "POST"});
  });
});
</script></head><body><p id="result">nothing yet</p><img src="/held">%(body)s</body></html>
"""

HUNDRED = f"""
  await Promise.all([...Array({EACH}).keys()].map(fetched));
  const images = [...document.querySelectorAll("img.counted")];
  await Promise.all(images.map((image) => image.decode()));
  arrived.image = images.filter((image) => image.naturalWidth === 7).length;
  const frames = [...document.querySelectorAll("iframe")];
  await Promise.all(frames.map((frame) => frame.contentDocument.title ? null : new Promise((f) => frame.onload = f)));
  arrived.frame = frames.filter((frame, n) => frame.contentDocument.title === "frame " + n).length;
  const style = getComputedStyle(document.body);
  for (let n = 0; n < {EACH}; n++) if (style.getPropertyValue("--style-" + n).trim() === "yes") arrived.style += 1;
  return JSON.stringify(arrived);
"""

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="7" height="7"><rect width="7" height="7" id="i%d"/></svg>'
BODIES: dict[str, tuple[str, Callable[[int], str]]] = {
    "image": ("image/svg+xml", lambda n: SVG % n),
    "style": ("text/css", lambda n: f"body {{ --style-{n}: yes; }}"),
    "script": ("text/javascript", lambda n: "arrived.script += 1;"),
    "data": ("application/json", lambda n: json.dumps({"n": n})),
    "frame": ("text/html", lambda n: f"<!DOCTYPE html><title>frame {n}</title>"),
}


def resources() -> list[str]:
    """The paths of the hundred."""
    return [f"/{kind}/{n}" for kind in KINDS for n in range(EACH)]


class Pages:
    """The pages, and whether their scripts are done."""

    def __init__(self, version: str, seen: list[Seen]) -> None:
        self.done = asyncio.Event()
        self.acknowledged: asyncio.Queue[None] = asyncio.Queue()
        self.app = recording(version, seen)
        add = self.app.router.add_route
        add("GET", "/hundred", self.hundred)
        add("GET", "/listening", self.listening)
        add("GET", "/talking", self.talking)
        add("GET", "/held", self.held)
        add("POST", "/done", self.say_done)
        add("GET", "/chat", self.chat)
        add("GET", "/events", self.events)
        add("POST", "/ack", self.acknowledge)
        for kind in KINDS:
            add("GET", f"/{kind}/{{n}}", self.resource)

    async def hundred(self, _: web.Request) -> web.Response:
        numbers = range(EACH)
        head = "".join(f'<link rel="stylesheet" href="/style/{n}">' for n in numbers)
        body = "".join(
            f'<img class="counted" src="/image/{n}"><iframe src="/frame/{n}"></iframe>'
            f'<script src="/script/{n}"></script>'
            for n in numbers
        )
        return self._page(head=head, body=body, work=HUNDRED)

    async def listening(self, _: web.Request) -> web.Response:
        return self._page(head="", body="", work="return await listened();")

    async def talking(self, _: web.Request) -> web.Response:
        return self._page(head="", body="", work="return await talked();")

    def _page(self, **parts: str) -> web.Response:
        self.done.clear()
        return web.Response(text=PAGE % parts, content_type="text/html", headers={"Cache-Control": "no-store"})

    async def resource(self, request: web.Request) -> web.Response:
        kind, n = request.path.split("/")[1:]
        content_type, body = BODIES[kind]
        return web.Response(text=body(int(n)), content_type=content_type)

    async def held(self, _: web.Request) -> web.Response:
        async with asyncio.timeout(GIVE_UP_SECONDS):
            await self.done.wait()
        return web.Response(text=SVG % 0, content_type="image/svg+xml")

    async def say_done(self, _: web.Request) -> web.Response:
        self.done.set()
        return web.Response(status=204)

    async def chat(self, request: web.Request) -> web.WebSocketResponse:
        chat = web.WebSocketResponse()
        await chat.prepare(request)
        async for message in chat:
            await chat.send_str(f"{message.data} yourself")
        return chat

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Three events, each after the page has acknowledged the one before it."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in ("first", "second"):
            await response.write(f"data: {event}\n\n".encode())
            await self.acknowledged.get()
        await response.write(b"data: last\n\n")
        return response

    async def acknowledge(self, _: web.Request) -> web.Response:
        self.acknowledged.put_nowait(None)
        return web.Response(status=204)


def pages() -> Serve:
    """Serves the pages in each version."""
    return lambda version, seen: site(Pages(version, seen).app)
