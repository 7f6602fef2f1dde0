"""Turns the declarations and annotations under api/ into the shims', the wire's and the worker's code.

SPDX-License-Identifier: Apache-2.0
"""
