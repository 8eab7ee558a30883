"""`ray job submit --working-dir . -- python jobs/score.py ...`: as `sf-ray score ...`."""

import os
import sys

# Python puts this script's folder first, where a select.py would hide the standard library's own
# `select`; the repository's root belongs there.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from sf_ray.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["score", *sys.argv[1:]]))
