"""The fault table: experiments on real processes, each a promise with a figure. ``python -m tests.faults``."""
