"""The admin side: probes, metrics and the API, on a listener of its own, never on the traffic port."""
