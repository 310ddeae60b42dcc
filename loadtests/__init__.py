"""Load tests: this router beside its peers, on one machine, in one run."""
