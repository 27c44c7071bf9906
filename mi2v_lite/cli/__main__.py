"""`python -m mi2v_lite.cli` is `mi2v`."""

import sys

from . import main

sys.exit(main())
