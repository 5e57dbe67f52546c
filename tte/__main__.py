# SPDX-License-Identifier: Apache-2.0
"""`python -m tte`."""

from tte.cli import main

if __name__ == "__main__":
    main()
