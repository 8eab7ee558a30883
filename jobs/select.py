"""`ray job submit --working-dir . -- python jobs/select.py ...`: as `sf-ray select ...`."""

import sys

from sf_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["select", *sys.argv[1:]]))
