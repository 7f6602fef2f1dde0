"""The client's side of a pool: speak to it, start this machine's own.

SPDX-License-Identifier: Apache-2.0
"""
