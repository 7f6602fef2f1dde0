"""Placement: a pure function of state and request.

SPDX-License-Identifier: Apache-2.0
"""
