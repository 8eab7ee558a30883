"""`ray job submit --working-dir . -- python jobs/run.py ...`: as `sf-ray run ...`."""

import sys

from sf_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
