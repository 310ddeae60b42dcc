"""The member tables that a snapshot names: mapped once, and for as long as a snapshot names them."""

from __future__ import annotations

import sys

from router.core.lookup import Lookup, no_tables
from router.core.table import MemberTable
from router.members.files import open_table


class OpenTables:
    """Those of one snapshot; what the snapshot before had open is taken from it."""

    __slots__ = ("_before", "_is_first", "_open")

    def __init__(self, before: OpenTables | None, *, is_first: bool) -> None:
        self._before: dict[str, MemberTable] = {} if before is None else before._open
        self._is_first = is_first
        self._open: dict[str, MemberTable] = {}

    def find(self, path: str) -> Lookup:
        """The table of a file. Raises ``OSError`` for one that cannot be used: the snapshot in force goes on.

        A worker that has no snapshot yet has nothing better to go on with: nobody is in such a table, which it says.
        """
        table = self._open.get(path) or self._before.get(path)
        if table is None:
            try:
                table = open_table(path)
            except (OSError, ValueError) as error:
                if not self._is_first:
                    raise OSError(f"the member table {path} cannot be opened: {error}") from None
                sys.stderr.write(f"the member table {path} cannot be opened ({error}): nobody is in it\n")
                return no_tables(path)
        self._open[path] = table
        return table
