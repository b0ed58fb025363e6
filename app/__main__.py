"""``python -m app`` is the same as ``offsim``."""

import sys

from app.main import main

sys.exit(main())
