"""How the cost of a server grows with services and builds, from what a client was measured to ask.

    python3 tests/bench/cluster_model.py [MEASURED.json]

Pure arithmetic. A build is a run of Pants for all services on a client with an empty store, as CI
has it, which fetches no layer. It asks for every service, and makes again what a change concerns.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping

_SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Assumptions:
    """What is not measured.

    :param edits: the share of builds in which a service has changed; the rest find all as it was.
    :param services_per_build: the share of the services that a build is for.
    :param peak: how much busier the busiest minute is than the day's mean.
    :param retention_days: how long a blob is kept after its last use.
    :param requests_per_second: what one server answers before it is the one that is waited for: a
        third of what `cluster_settings.py` measured on two cores.
    """

    edits: float = 0.5
    services_per_build: float = 0.1
    peak: float = 5.0
    retention_days: float = 30.0
    requests_per_second: float = 1000.0


ASSUMED = Assumptions()


@dataclass(frozen=True)
class Costs:
    """What was measured, per build and per service.

    :param fixed_requests: those of a build, whatever it is for.
    :param service_requests: those for a service with nothing to do.
    :param edit_requests: the further ones for a service that has changed.
    """

    fixed_requests: float
    service_requests: float
    edit_requests: float
    fixed_bytes_down: float
    service_bytes_down: float
    edit_bytes_up: float
    edit_stored_bytes: float
    first_stored_bytes: float
    service_stored_bytes: float

    @classmethod
    def of(cls, measured: Mapping[str, Any], mode: str) -> Costs:
        """Those of the mode `cache` or `execution` in the JSON of `cluster_bench.py`."""
        steps: Dict[str, Dict[str, float]] = measured[mode]
        one, every = steps["one service, another client"], steps["all, another client"]
        more = measured["services"] - 1
        per_service = (every["requests"] - one["requests"]) / more
        down = (every["bytes_down"] - one["bytes_down"]) / more
        edit, other = steps["one service, one edit"], steps["all other services"]
        return cls(
            one["requests"] - per_service,
            per_service,
            edit["requests"],
            one["bytes_down"] - down,
            down,
            edit["bytes_up"],
            edit["stored_bytes"],
            steps["one service, cold"]["stored_bytes"],
            other["stored_bytes"] / more,
        )


@dataclass(frozen=True)
class Load:
    """A day of a server: requests a second, bytes, and what it stores after the retention."""

    mean_requests: float
    peak_requests: float
    bytes_up: float
    bytes_down: float
    stored_bytes: float
    servers: int


def load(costs: Costs, builds: int, services: int, assumed: Assumptions = ASSUMED) -> Load:
    """What so many builds a day of so many services ask of it."""
    asked = max(1.0, services * assumed.services_per_build)
    edits = builds * assumed.edits
    requests = builds * (costs.fixed_requests + asked * costs.service_requests)
    requests += edits * costs.edit_requests
    mean = requests / _SECONDS_A_DAY
    peak = mean * assumed.peak
    return Load(
        mean,
        peak,
        edits * costs.edit_bytes_up,
        builds * (costs.fixed_bytes_down + asked * costs.service_bytes_down),
        costs.first_stored_bytes
        + (services - 1) * costs.service_stored_bytes
        + edits * assumed.retention_days * costs.edit_stored_bytes,
        max(1, -int(-peak // assumed.requests_per_second)),
    )


def print_table(measured: Mapping[str, Any], assumed: Assumptions = ASSUMED) -> None:
    """A row for each number of builds and services."""
    print(f"\n{assumed}")
    for mode in ("cache", "execution"):
        costs = Costs.of(measured, mode)
        print(f"\nWith {mode}: {costs}")
        print(
            f"{'builds a day':>12}{'services':>9}{'req/s':>8}{'peak':>8}{'GB up/day':>10}"
            f"{'GB down/day':>12}{'GB stored':>10}{'servers':>8}"
        )
        for builds in (100, 1_000, 10_000):
            for services in (50, 500, 2_000):
                one = load(costs, builds, services, assumed)
                print(
                    f"{builds:12}{services:9}{one.mean_requests:8.1f}{one.peak_requests:8.1f}"
                    f"{one.bytes_up / 1e9:10.2f}{one.bytes_down / 1e9:12.2f}"
                    f"{one.stored_bytes / 1e9:10.1f}{one.servers:8}"
                )


if __name__ == "__main__":
    default = Path(__file__).with_name("cluster_measured.json")
    print_table(json.loads(Path(sys.argv[1] if sys.argv[1:] else default).read_text()))
