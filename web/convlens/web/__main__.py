"""`python -m convlens.web` is `convlens web`."""

import sys

from convlens.web.command import main

sys.exit(main())
