"""`python -m asyncnet`: the `asyncnet` command."""

import sys

from asyncnet.cli import main

sys.exit(main())
