"""The embedded pool: controller and agent of one machine in one process, for one user.

SPDX-License-Identifier: Apache-2.0
"""
