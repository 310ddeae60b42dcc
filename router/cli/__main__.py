"""``python -m router.cli``: the same as the ``ring-router`` command."""

from router.cli.main import main

main(prog_name="ring-router")
