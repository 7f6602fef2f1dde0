"""The launcher: `outboard run`. Standard library alone, and as little of it as will do.

SPDX-License-Identifier: Apache-2.0
"""
