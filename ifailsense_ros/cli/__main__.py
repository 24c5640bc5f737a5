"""`python -m ifailsense_ros.cli` is `ifailsense`."""

import sys

from ifailsense_ros.cli import main

sys.exit(main())
