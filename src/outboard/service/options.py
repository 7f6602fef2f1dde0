"""What a service is asked to hold, for whom, and its times.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from dataclasses import dataclass, field

from outboard.errors import MalformedRequest


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """The options of `outboard service run`. `share` is as the pool's API takes it.

    `for_user` or `group` restricts who may use the session; neither means everybody.
    `idle_s` None keeps the GPUs however long nobody uses them.
    """

    gpus: int = 1
    share: dict[str, int] = field(default_factory=dict)
    for_user: str = ""
    group: str = ""
    idle_s: float | None = None
    ready_timeout_s: float = 10.0
    wake_timeout_s: float = 30.0
    longest_pause_s: float = 60.0


def options_from_json(record: object) -> ServiceOptions:
    """The options that another process sent; raises `MalformedRequest`."""
    try:
        if not isinstance(record, dict):
            raise TypeError("not an object")
        return ServiceOptions(**record)
    except TypeError as error:
        raise MalformedRequest(f"these are not a service's options: {error}") from error
