"""The client service: holds GPUs for a machine or a user, and gives its programs tickets for them.

SPDX-License-Identifier: Apache-2.0
"""
