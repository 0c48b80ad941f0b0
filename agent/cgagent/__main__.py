"""`python -m cgagent` is the console script without an installation."""

import sys

from cgagent.cli import main

sys.exit(main())
