"""`ray job submit --working-dir . -- python jobs/score.py ...`: as `sf-ray score ...`."""

import sys

from sf_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["score", *sys.argv[1:]]))
