"""The nouns that every layer shares: node, device, request, grant, session file.

SPDX-License-Identifier: Apache-2.0
"""
