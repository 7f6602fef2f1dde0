"""Keys: who signs grants, who is the authority of a pool's certificates, what tokens look like.

SPDX-License-Identifier: Apache-2.0
"""
