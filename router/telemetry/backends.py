"""What is known of each endpoint, put together: the snapshot's word (down, drained) and the workers' (their counters).

Pure. A worker that says nothing of an endpoint takes it to be up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from router.core.spec import EndpointSpec, ServiceSpec, VersionSpec
from router.telemetry.counters import EndpointCounters, EndpointKey

UP: Final = "up"
WELL: Final = frozenset({UP, "slow start"})
"""Words of workers that send requests there; any other word is one that does not."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One endpoint of a version, as all workers together see it."""

    service: str
    version: str
    endpoint: EndpointSpec
    is_down: bool
    """Active checks say so."""
    is_drained: bool
    states: Mapping[str, int]
    """What workers say of it → how many do; without those that it is simply up for, when nobody says anything else."""
    counters: EndpointCounters

    @property
    def state(self) -> str:
        """In one or two words; of several that workers say, the one most of them do, and the worse of two equals."""
        if self.is_drained or self.endpoint.weight == 0:
            return "drained"
        if self.is_down:
            return "down by checks"
        return max(self.states, key=lambda word: (self.states[word], word not in WELL, word != UP), default=UP)

    @property
    def is_well(self) -> bool:
        """Whether it could be sent requests: checks pass, and at least one worker would. A drained one can be well."""
        return not self.is_down and (not self.states or any(word in WELL or word == "drained" for word in self.states))


def backends(service: ServiceSpec, counters: Mapping[EndpointKey, EndpointCounters]) -> Iterator[Backend]:
    """Every endpoint of a service, in the order of the config."""
    for version in service.versions:
        for endpoint in version.endpoints:
            known = counters.get((service.name, version.name, endpoint.address)) or EndpointCounters()
            yield _backend(service.name, version, endpoint, known)


def _backend(service: str, version: VersionSpec, endpoint: EndpointSpec, counters: EndpointCounters) -> Backend:
    states: dict[str, int] = {}
    for word, workers in counters.states.items():
        if workers > 0:
            said = word.replace("_", " ")
            states[said] = states.get(said, 0) + workers
    return Backend(
        service, version.name, endpoint, endpoint.address in version.down, endpoint.address in version.drained, states,
        counters,
    )  # fmt: skip
