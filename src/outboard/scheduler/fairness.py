"""Fair share: what each user has used lately, by a measure that forgets.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import math
from collections.abc import Mapping

HALF_LIFE_US = 24 * 3600 * 1_000_000
_SOON_US = 600 * 1_000_000


class FairShare:
    """Decaying usage per user, in GPU-microseconds weighted by share.

    Use at a steady rate r tends to r * half-life / ln 2; a user who waits is forgiven half of it
    in every half-life, and so comes before whoever goes on using.
    """

    def __init__(
        self, weights: Mapping[str, int] | None = None, half_life_us: int = HALF_LIFE_US
    ) -> None:
        self.weights = dict(weights or {})
        self._decay_us = half_life_us / math.log(2)
        self._rates: dict[str, float] = {}
        self._values: dict[str, tuple[float, int]] = {}

    def begin(self, user: str, gpus: float, now_us: int) -> None:
        """The user holds that many GPUs (or parts of them) more from now on."""
        self._values[user] = (self._value(user, now_us), now_us)
        self._rates[user] = self._rates.get(user, 0.0) + gpus

    def end(self, user: str, gpus: float, now_us: int) -> None:
        """The user holds that many fewer from now on."""
        self.begin(user, -gpus, now_us)
        if abs(self._rates[user]) < 1e-9:  # what sums of fractions leave over
            self._rates[user] = 0.0

    def remember(self, user: str, gpus: float, begun_us: int, ended_us: int, now_us: int) -> None:
        """Add a use of the past, as much of it as is not forgotten by now."""
        start = math.exp(-max(0, now_us - begun_us) / self._decay_us)
        end = math.exp(-max(0, now_us - ended_us) / self._decay_us)
        value = self._value(user, now_us) + gpus * self._decay_us * (end - start)
        self._values[user] = (value, now_us)

    def rank(self, user: str, more_gpus: float, now_us: int) -> float:
        """What the user has used, by the user's weight; who has the least comes first.

        What the user holds, and `more_gpus` that are just being granted, count as if they were
        held for a while: else all that is free at one moment would go to one user.
        """
        soon = (self._rates.get(user, 0.0) + more_gpus) * _SOON_US
        return (self._value(user, now_us) + soon) / self.weights.get(user, 1)

    def _value(self, user: str, now_us: int) -> float:
        value, at_us = self._values.get(user, (0.0, now_us))
        kept = math.exp(-max(0, now_us - at_us) / self._decay_us)
        return value * kept + self._rates.get(user, 0.0) * self._decay_us * (1 - kept)
