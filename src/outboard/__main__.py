"""`python -m outboard` is the same as the command `outboard`.

SPDX-License-Identifier: Apache-2.0
"""

from outboard.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
