"""The ledger's migrations, run by outboard.ledger.versions.

SPDX-License-Identifier: Apache-2.0
"""
