"""Our own conformance suite for RFC 9110 and RFC 9112: tables of cases, two stages, one runner."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Final

from tests.conformance.case import RequestCase, ResponseCase

_TABLES: Final = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]

REQUESTS: Final[list[RequestCase]] = [case for table in _TABLES for case in getattr(table, "REQUESTS", ())]
RESPONSES: Final[list[ResponseCase]] = [case for table in _TABLES for case in getattr(table, "RESPONSES", ())]
