"""Medians of paired runs with their 95 % interval.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A median and the 95 % interval of it (order statistics; no distribution is assumed)."""

    median: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.median:.4g} [{self.low:.4g}, {self.high:.4g}]"


def estimate(values: Sequence[float]) -> Estimate:
    """The median of `values` and its 95 % interval by order statistics (binomial)."""
    if not values:
        raise ValueError("an estimate needs at least one value")
    ordered = sorted(values)
    count = len(ordered)
    below = 0
    tail = 0.0
    for k in range(count):
        tail += math.comb(count, k) / 2**count
        if tail > 0.025:
            break
        below = k + 1
    return Estimate(statistics.median(ordered), ordered[below], ordered[count - 1 - below], count)
