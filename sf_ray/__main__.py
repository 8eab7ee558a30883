"""`python -m sf_ray` runs the same command line as `sf-ray`."""

import sys

from sf_ray.cli import main

if __name__ == "__main__":
    sys.exit(main())
