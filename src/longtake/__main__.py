"""`python -m longtake` is the command line."""

import sys

from longtake.cli import main

sys.exit(main())
