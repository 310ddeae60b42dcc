"""The tables of docs/http.md say what the code does: every failure and every limit is there, and none that is not."""

from __future__ import annotations

import re
from pathlib import Path

from router.config.edge import Limits, ListenerTimeouts
from router.config.settings import ServiceTimeouts
from router.proxy.failures import Failure

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "http.md").read_text()


def test_every_failure_stands_in_the_table_as_it_is() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| .+ \| (yes)? ?\| (yes)? ?\|$", TEXT, re.MULTILINE)
    written = {(int(status), word, bool(closes), bool(again)) for status, word, closes, again in rows}
    assert written == {(f.value.status, f.value.word, f.value.closes, f.value.retryable) for f in Failure}
    assert len({failure.value.word for failure in Failure}) == len(Failure)
    assert all(failure.value.sentence.endswith(".") for failure in Failure)


def test_every_limit_and_time_out_has_a_source() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \| [^|]+ \| [^|]+ \|$", TEXT, re.MULTILINE)
    written = {key for row in rows for key in re.findall(r"`([a-z_.*]+)`", row)}
    known = {f"limits.{key}" for key in Limits.model_fields} | {
        f"timeouts.{key}" for key in ListenerTimeouts.model_fields
    }
    assert written == known | {f"services.*.timeouts.{key}" for key in ServiceTimeouts.model_fields}
