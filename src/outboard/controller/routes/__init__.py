"""The API's routes by noun, each a router over the service.

SPDX-License-Identifier: Apache-2.0
"""
