"""Ring router: sends each request to the version its audience runs.

The tree is the architecture; imports go one way:
``cli → process → {proxy, control, rollout, admin} → {telemetry, config} → core``.
"""

__version__ = "0.1.0"
