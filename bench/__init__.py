"""Benchmarks: native and Outboard side by side in one run, as ratios with their interval.

SPDX-License-Identifier: Apache-2.0
"""
