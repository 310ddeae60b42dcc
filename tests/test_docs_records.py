"""docs/access-log.md and docs/tracing.md are true: their configs are valid, every field and attribute is in them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from router.config.load import parse_settings
from router.config.records import AccessLogSettings, Tracing
from router.telemetry.log_forms import Decided, EcsForm, JsonForm
from router.telemetry.log_sink import QUEUE_LINES
from router.telemetry.spans import attributes
from tests.test_docs_operations import SERVICES
from tests.test_tracing import span_of

DOCS = Path(__file__).parent.parent / "docs"
LOG = (DOCS / "access-log.md").read_text("utf-8")
TRACING = (DOCS / "tracing.md").read_text("utf-8")


def test_the_configs_they_show_are_valid() -> None:
    blocks = [block for text in (LOG, TRACING) for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.S | re.M)]
    assert len(blocks) == 2
    for block in blocks:
        assert parse_settings(block + SERVICES, "docs.yaml", {"RING_ROUTER_KEY": "k" * 32}).services
    shown = blocks[0] + blocks[1]
    keys = {*AccessLogSettings.model_fields, *Tracing.model_fields}
    assert {key for key in keys if f"{key}:" not in shown} == set()


def test_every_field_of_a_line_is_in_the_table() -> None:
    for form in (JsonForm(), EcsForm()):
        request, lane = form.request(b"GET", b"/", False), Decided("s", "r", "v", "rule").render(form)
        name = b'","request_id":"' if isinstance(form, JsonForm) else b'","http.request.id":"'
        whole = form.time(0) + b"c" + request + form.status[200] + b"1" + form.middle(0, 1) + lane + b"e" + name
        fields = json.loads(whole + b"i" + form.last(b"-", 0.5, b"x"))
        assert {field for field in fields if f"`{field}`" not in LOG and not field.startswith("ring_router.")} == set()
    assert f"{QUEUE_LINES:,} lines" in LOG


def test_every_attribute_of_a_span_is_in_the_table() -> None:
    found = attributes(span_of(method="GET", flags="UH", status=502))
    assert {name for name in found if f"`{name}`" not in TRACING} == set()
