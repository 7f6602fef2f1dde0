"""The pool's log: a file in the state folder, bounded, or nothing where none can be written.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import time

from outboard.directories import state_directory

LARGEST_LOG_BYTES = 4 << 20


def open_log() -> str | None:
    """Send the log to its file; returns the file's path, or None if there is none."""
    logger = logging.getLogger("outboard")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    folder = state_directory()
    handler: logging.Handler = logging.NullHandler()
    path = None
    if folder is not None:
        path = os.path.join(folder, "pool.log")
        try:
            handler = logging.handlers.RotatingFileHandler(
                path, maxBytes=LARGEST_LOG_BYTES, backupCount=1, encoding="utf-8"
            )
        except OSError:
            path = None
    formatter = logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    formatter.default_msec_format = "%s.%03dZ"
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    # A disk that is full must not turn every log line into a traceback on stderr.
    logging.raiseExceptions = False
    return path
