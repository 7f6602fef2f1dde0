"""What `outboard doctor` looks at: one function for each thing that can be wrong on a machine.

SPDX-License-Identifier: Apache-2.0
"""
