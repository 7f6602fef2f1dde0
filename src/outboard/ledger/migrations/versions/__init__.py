"""One file for each version of the ledger's schema, in order.

SPDX-License-Identifier: Apache-2.0
"""
