"""The bodies that the API takes, and with them its published schema.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from outboard.model.filters import Filter
from outboard.model.request import MOST_FILTERS, MOST_PRIORITY, Request, Share

_MOST_BYTES = (1 << 62) - 1
_MOST_SECONDS = 10 * 365 * 86400

Bytes = Annotated[int, Field(gt=0, le=_MOST_BYTES)]
Seconds = Annotated[float, Field(ge=0, le=_MOST_SECONDS, allow_inf_nan=False)]
# No control characters: databases and terminals do not take them.
Line = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.@:*+-]+$")]
Word = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_.@:+-]*$")]
Identity = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Hash = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
Secret = Annotated[str, Field(max_length=256, pattern=r"^[ -~]*$")]
Whole32 = Annotated[int, Field(ge=0, lt=1 << 32)]


class Body(BaseModel):
    """A JSON object without fields that nobody knows."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ShareBody(Body):
    """Of each GPU: all of it, a fraction of its memory, or an amount."""

    millionths: Annotated[int, Field(gt=0, le=1_000_000)] | None = None
    bytes: Bytes | None = None


class FilterBody(Body):
    """A condition on every device."""

    key: Word
    operator: Literal["=", "!=", ">=", "<="]
    value: Line


class RequestBody(Body):
    """A request for GPUs. `id` is the client's; `hold_s` is how long this call may take."""

    id: Identity
    gpus: Annotated[int, Field(gt=0, le=1000)]
    share: ShareBody = ShareBody()
    wait_s: Seconds | None = None
    hold_s: Annotated[float, Field(ge=0, le=60)] | None = None
    program: Line = ""
    uid: Whole32 = 0
    pid: Whole32 = 0
    filters: Annotated[list[FilterBody], Field(max_length=MOST_FILTERS)] = []
    spread: bool = False
    same_node: bool = False
    server: Word = ""
    pool: Word = ""
    name: Line = ""
    priority: Annotated[int, Field(ge=-MOST_PRIORITY, le=MOST_PRIORITY)] = 0
    wanted_s: Seconds | None = None
    user: Word = ""
    dry_run: bool = False
    holder_sha256: Hash = ""

    def request(self, user: str, host: str | None) -> Request:
        """The request of that user; raises `MalformedRequest` for what only the model knows."""
        return Request(
            id=self.id,
            gpus=self.gpus,
            share=Share(self.share.millionths, self.share.bytes),
            wait_s=self.wait_s,
            uid=self.uid,
            pid=self.pid,
            program=self.program,
            user=user,
            host=host,
            filters=tuple(Filter(one.key, one.operator, one.value) for one in self.filters),
            spread=self.spread,
            same_node=self.same_node,
            node=self.server,
            pool=self.pool,
            name=self.name,
            priority=self.priority,
            wanted_s=self.wanted_s,
            holder_sha256=self.holder_sha256,
        )


class RenewBody(Body):
    """The holder's secret, where the session is held by one."""

    holder: Secret = ""


class TakeOverBody(Body):
    """The last holder's secret, and the SHA-256 (hex) of the new holder's."""

    holder: Secret
    holder_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ResizeBody(Body):
    """A share for each of the session's devices, in their order."""

    share_bytes: Annotated[list[Bytes], Field(min_length=1, max_length=16)]


class ReasonBody(Body):
    reason: Line = ""


class DrainBody(Body):
    """What runs goes on until the deadline; without one, until it ends by itself."""

    reason: Line = ""
    deadline_s: Seconds | None = None


class NodeBody(Body):
    """What a server belongs to, and what filters may ask of it; an empty label is taken away."""

    pool: (
        Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")] | None
    ) = None
    labels: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")],
            Annotated[str, Field(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")],
        ],
        Field(max_length=64),
    ] = {}


class LimitBody(Body):
    """A number, or names of pools."""

    value: Annotated[int, Field(ge=-MOST_PRIORITY, le=_MOST_BYTES)] | None = None
    names: Annotated[list[Name], Field(max_length=64)] = []


class UserBody(Body):
    full_name: Line | None = None
    weight: Annotated[int, Field(gt=0, le=1_000_000)] | None = None
    direct: bool | None = None
    disabled: bool | None = None
    groups: Annotated[list[Name], Field(max_length=64)] | None = None


class HostBody(Body):
    policy: Literal["any", "service-only", "blocked"]


class TokenBody(Body):
    """A token for a user, or one by which machines join (`uses`, scopes `enrol` and more)."""

    subject_kind: Literal["user", "join"] = "user"
    subject: Name
    scopes: Annotated[
        list[Literal["use", "read", "admin", "agent", "enrol", "service", "controller"]],
        Field(min_length=1, max_length=7),
    ]
    lifetime_s: Annotated[int, Field(gt=0, le=_MOST_SECONDS)] | None = None
    uses: Annotated[int, Field(gt=0, le=1_000_000)] | None = None
    note: Line = ""
