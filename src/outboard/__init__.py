"""Outboard: GPUs of a pool of servers in any Linux machine, for programs that know nothing of it.

SPDX-License-Identifier: Apache-2.0
"""

__version__ = "0.1.0"
