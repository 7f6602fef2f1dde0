"""Every failure that Outboard reports, as one tree.

SPDX-License-Identifier: Apache-2.0

    OutboardError                       code                 HTTP  exit
    ├── UsageError                      usage                 400   125
    ├── ConfigurationError              configuration         500   125
    ├── NativeFilesMissing              native_files          500   125
    ├── CommandNotFound                 command_not_found     400   127
    ├── CommandNotExecutable            command_not_executable 400  126
    ├── SessionFileError                session_file          400   125
    │   ├── SessionFileUnreadable       session_unreadable    400   125
    │   ├── SessionFileForeign          session_foreign       403   125
    │   └── SessionFileMalformed        session_malformed     400   125
    ├── PoolError                       pool                  503   125
    │   ├── PoolUnreachable             pool_unreachable      503   125
    │   ├── PoolStartFailed             pool_start            503   125
    │   └── PoolEnding                  pool_ending           503   125
    ├── RequestError                    request               400   125
    │   ├── MalformedRequest            malformed_request     400   125
    │   ├── NotFound                    not_found             404   125
    │   │   └── SessionIdle             session_idle          410   125
    │   ├── TooManyGpus                 too_many_gpus         422   125
    │   ├── NothingMatches              nothing_matches       422   125
    │   ├── ShareTooLarge               share_too_large       422   125
    │   ├── ShareTooSmall               share_too_small       422   125
    │   ├── PoolBusy                    busy                  409   125
    │   ├── SessionsActive              sessions_active       409   125
    │   ├── WaitedTooLong               waited_too_long       408   124
    │   ├── Unauthenticated             unauthenticated       401   125
    │   ├── Forbidden                   forbidden             403   125
    │   ├── NodeRemoved                 node_removed          403   125
    │   ├── LimitReached                limit_reached         403   125
    │   ├── RateLimited                 rate_limited          429   125
    │   ├── SessionEnded                session_ended         410   125
    │   └── Stale                       stale                 409   125
    ├── ServiceError                    service               503   125
    │   ├── LocalDriver                 local_driver          409   125
    │   ├── ServiceNotRunning           service_not_running   503   125
    │   ├── ServiceRunning              service_running       409   125
    │   └── ServiceWithoutGpus          service_without_gpus  503   125
    ├── LedgerError                     ledger                500   125
    │   ├── LedgerLocked                ledger_locked         503   125
    │   └── DatabaseUnavailable         database_unavailable  503   125
    └── AgentError                      agent                 500   125
        ├── InventoryFailed             inventory             500   125
        ├── WorkerFailed                worker                500   125
        └── Refusal                     (the preface's code)  403   125

A code is stable: programs may compare it. The message says what and why, the hint what to do next.
"""

from __future__ import annotations

EXIT_WAITED_TOO_LONG = 124
EXIT_OUTBOARD_FAILED = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127


class OutboardError(Exception):
    """What went wrong (`message`), what to do about it (`hint`), and how programs are told."""

    code = "outboard"
    http_status = 500
    exit_code = EXIT_OUTBOARD_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(OutboardError):
    """The command line asks for something that cannot be meant."""

    code = "usage"
    http_status = 400


class ConfigurationError(OutboardError):
    """A configuration file or a variable holds something that cannot be used."""

    code = "configuration"


class NativeFilesMissing(OutboardError):
    """The shims, the worker or the software GPU are not where they should be."""

    code = "native_files"


class CommandNotFound(OutboardError):
    """The program to run does not exist."""

    code = "command_not_found"
    http_status = 400
    exit_code = EXIT_NOT_FOUND


class CommandNotExecutable(OutboardError):
    """The program to run exists but cannot be executed."""

    code = "command_not_executable"
    http_status = 400
    exit_code = EXIT_NOT_EXECUTABLE


class SessionFileError(OutboardError):
    """The session file that the environment names cannot be used."""

    code = "session_file"
    http_status = 400


class SessionFileUnreadable(SessionFileError):
    """It is missing, or may not be read, or is not a regular file."""

    code = "session_unreadable"


class SessionFileForeign(SessionFileError):
    """It belongs to someone else, or others could have written or read it."""

    code = "session_foreign"
    http_status = 403


class SessionFileMalformed(SessionFileError):
    """Its content is not a session."""

    code = "session_malformed"


class PoolError(OutboardError):
    """The pool did not do what was asked of it."""

    code = "pool"
    http_status = 503


class PoolUnreachable(PoolError):
    """Nobody answers at the pool's address."""

    code = "pool_unreachable"


class PoolStartFailed(PoolError):
    """The pool of this machine could not be started."""

    code = "pool_start"


class PoolEnding(PoolError):
    """The pool is about to end and takes no requests."""

    code = "pool_ending"


class RequestError(OutboardError):
    """The pool understood the request and refuses it."""

    code = "request"
    http_status = 400


class MalformedRequest(RequestError):
    """The body or the path of an API request is not what the API takes."""

    code = "malformed_request"


class NotFound(RequestError):
    """The thing that the request names does not exist."""

    code = "not_found"
    http_status = 404


class TooManyGpus(RequestError):
    """More GPUs than the pool has."""

    code = "too_many_gpus"
    http_status = 422


class NothingMatches(RequestError):
    """Too few GPUs of the pool are what the request's filters ask for."""

    code = "nothing_matches"
    http_status = 422


class ShareTooLarge(RequestError):
    """More memory than any GPU of the pool can give."""

    code = "share_too_large"
    http_status = 422


class ShareTooSmall(RequestError):
    """Less memory than a CUDA context needs."""

    code = "share_too_small"
    http_status = 422


class PoolBusy(RequestError):
    """The pool could grant this, but not now."""

    code = "busy"
    http_status = 409


class SessionsActive(RequestError):
    """The pool has sessions and was not told to end them."""

    code = "sessions_active"
    http_status = 409


class WaitedTooLong(RequestError):
    """The request was not granted within the time that it allowed."""

    code = "waited_too_long"
    http_status = 408
    exit_code = EXIT_WAITED_TOO_LONG


class Unauthenticated(RequestError):
    """The request shows no token, or one that is unknown, expired or revoked."""

    code = "unauthenticated"
    http_status = 401


class Forbidden(RequestError):
    """The token is good but does not allow this."""

    code = "forbidden"
    http_status = 403


class NodeRemoved(RequestError):
    """An agent's node is no longer of this pool: it ends its sessions."""

    code = "node_removed"
    http_status = 403


class LimitReached(RequestError):
    """A limit of the user, a group or the host forbids it, now or always; the message names it."""

    code = "limit_reached"
    http_status = 403


class RateLimited(RequestError):
    """Too many attempts without a token from one address."""

    code = "rate_limited"
    http_status = 429


class SessionIdle(NotFound):
    """An idle limit has ended the session; its holder asks again when a program wants GPUs."""

    code = "session_idle"
    http_status = 410


class SessionEnded(RequestError):
    """An administrator has ended the session; its holder must not start the next one by itself."""

    code = "session_ended"
    http_status = 410


class Stale(RequestError):
    """What the caller holds is not the newest: somebody else has taken it over."""

    code = "stale"
    http_status = 409


class ServiceError(OutboardError):
    """The client service of this machine could not do its part."""

    code = "service"
    http_status = 503


class LocalDriver(ServiceError):
    """The machine has an NVIDIA driver, which the shims would take the place of."""

    code = "local_driver"
    http_status = 409


class ServiceNotRunning(ServiceError):
    """Nobody answers where the service should."""

    code = "service_not_running"


class ServiceRunning(ServiceError):
    """A service of that name runs already."""

    code = "service_running"
    http_status = 409


class ServiceWithoutGpus(ServiceError):
    """The service runs and has no GPU to give."""

    code = "service_without_gpus"


class LedgerError(OutboardError):
    """The ledger could not do its part."""

    code = "ledger"


class LedgerLocked(LedgerError):
    """Another controller works on this SQLite ledger."""

    code = "ledger_locked"
    http_status = 503


class DatabaseUnavailable(LedgerError):
    """The database does not answer, or cannot write."""

    code = "database_unavailable"
    http_status = 503


class AgentError(OutboardError):
    """A GPU server could not do its part."""

    code = "agent"


class InventoryFailed(AgentError):
    """The driver's devices could not be listed."""

    code = "inventory"


class WorkerFailed(AgentError):
    """A worker process did not start, or did not answer."""

    code = "worker"


class Refusal(AgentError):
    """A data-plane connection is refused; `code` is one of the preface's."""

    code = "malformed"
    http_status = 403

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.code = code


def error_from_problem(problem: dict[str, object], status: int) -> OutboardError:
    """The exception for an RFC 9457 problem; an unknown code keeps message, hint and code."""
    code = str(problem.get("code", "pool"))
    message = str(problem.get("detail") or problem.get("title") or f"HTTP status {status}")
    hint = str(problem.get("hint", ""))
    kind = _by_code(OutboardError).get(code)
    if kind is None or kind is Refusal:
        error: OutboardError = PoolError(message, hint)
        error.code = code
        error.http_status = status
        return error
    return kind(message, hint)


def _by_code(root: type[OutboardError]) -> dict[str, type[OutboardError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_by_code(child))
    return found
