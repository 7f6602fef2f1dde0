"""What stops the generator: a mistake in the specification, its place and what to write.

SPDX-License-Identifier: Apache-2.0
"""


class SpecError(Exception):
    """The specification under api/ is wrong or incomplete; the message names file and entry."""
