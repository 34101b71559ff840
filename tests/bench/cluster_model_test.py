from __future__ import annotations

import pytest

from bench.cluster_model import Assumptions, Costs, load


def step(requests: int, down: int = 0, up: int = 0, stored: int = 0) -> dict[str, int]:
    return {"requests": requests, "bytes_down": down, "bytes_up": up, "stored_bytes": stored}


MEASURED = {
    "services": 11,
    "cache": {
        "one service, cold": step(100, stored=5_000_000),
        "one service, another client": step(30, down=1_000),
        "one service, one edit": step(20, up=2_000, stored=1_500),
        "all other services": step(200, stored=40_000),
        "all, another client": step(130, down=6_000),
    },
}
COSTS = Costs.of(MEASURED, "cache")


def test_costs_are_of_a_build_and_of_a_service() -> None:
    # Ten more services: 100 more requests, 5,000 bytes more.
    assert (COSTS.fixed_requests, COSTS.service_requests, COSTS.edit_requests) == (20, 10, 20)
    assert (COSTS.fixed_bytes_down, COSTS.service_bytes_down) == (500, 500)
    assert (COSTS.first_stored_bytes, COSTS.service_stored_bytes) == (5_000_000, 4_000)


def test_a_day() -> None:
    assumed = Assumptions(
        edits=0.5, services_per_build=0.1, peak=4, retention_days=10, requests_per_second=3
    )
    day = load(COSTS, 864, 100, assumed)
    # 864 builds of 10 services each: 20 + 100 requests; 432 edits of 20.
    assert day.mean_requests == pytest.approx((864 * 120 + 432 * 20) / 86_400)
    assert day.peak_requests == pytest.approx(day.mean_requests * 4)
    assert day.servers == 2
    assert day.bytes_up == 432 * 2_000
    assert day.bytes_down == 864 * (500 + 10 * 500)
    assert day.stored_bytes == 5_000_000 + 99 * 4_000 + 4_320 * 1_500


def test_a_build_is_for_one_service_at_least() -> None:
    assert load(COSTS, 86_400, 1).mean_requests == pytest.approx(20 + 10 + 0.5 * 20)
