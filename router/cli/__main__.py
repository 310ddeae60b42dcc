"""``python -m router.cli``: the same as the ``ring-router`` command."""

from router.cli.entry import main

main()
