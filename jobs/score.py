"""`sf-ray score` as a Ray job: `ray job submit --working-dir . -- python jobs/score.py ...`."""

import os
import sys

# Python puts the folder of this script first in `sys.path`, where jobs/select.py would hide the
# module `select` of the standard library. The repository's root takes its place.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from sf_ray.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["score", *sys.argv[1:]]))
