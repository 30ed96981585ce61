"""`python -m nexus_edge` is `nexus-edge`."""

import sys

from nexus_edge.cli import main

sys.exit(main())
