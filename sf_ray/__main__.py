"""`python -m sf_ray` runs the same command line as `sf-ray`."""

import os
import sys

# With `-m` Python looks for modules in the working directory first, which may be a folder of a
# stranger. The folder of this package takes its place.
if not sys.flags.safe_path:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from sf_ray.cli import main

if __name__ == "__main__":
    sys.exit(main())
