"""The controller: what is granted to whom, and the API that grants it.

SPDX-License-Identifier: Apache-2.0
"""
