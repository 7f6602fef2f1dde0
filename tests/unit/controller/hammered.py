"""`python -m tests.unit.controller.hammered URL PORT`: a controller process for the hammer to kill.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sys

import uvicorn

from outboard.controller.app import create_app
from outboard.controller.service import Service
from outboard.ledger.database import Database
from tests.unit.controller.deployment import PACE, TERMS, PlainSessions


def main(url: str, port: int) -> None:
    database = Database(url, pool_size=4)
    app = create_app(Service(database, TERMS, PACE), PlainSessions())
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
