"""`python -m mi2v_lite.cli` is `mi2v`, for `accelerate launch`, which wants a module."""

import sys

from . import main

sys.exit(main())
