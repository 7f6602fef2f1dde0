"""The agent of one GPU server: inventory, workers, the data plane's door.

SPDX-License-Identifier: Apache-2.0
"""
