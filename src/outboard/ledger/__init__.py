"""The ledger: what the pool has, what is granted of it, to whom, until when.

SPDX-License-Identifier: Apache-2.0
"""
