"""Turns api/ into the code of the shims, the wire and the worker.

SPDX-License-Identifier: Apache-2.0
"""
