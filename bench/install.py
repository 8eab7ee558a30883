"""What it takes to install the wheel into an empty environment: time, bytes, the largest parts.

python bench/install.py [WHEEL] [--extras gguf] [--with pip uv]

Nothing is taken from a cache. Files that lie on this machine are counted as if they were
downloaded. Without WHEEL it is built first.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

REPOSITORY = Path(__file__).parents[1]
CONSTRAINTS = REPOSITORY / "constraints.txt"
LARGEST = 5
UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}


def run(*command: object, **environment: str) -> float:
    """Runs a command; returns its seconds."""
    started = time.monotonic()
    words = [str(word) for word in command]
    subprocess.run(words, check=True, stdout=sys.stderr, env={**os.environ, **environment})
    return time.monotonic() - started


def size_of(place: Path) -> int:
    return sum(path.lstat().st_size for path in place.rglob("*") if path.is_file())


def pip_install(folder: Path, wanted: str) -> tuple[float, int | None]:
    """Installs with pip; returns the seconds, and the bytes that were fetched."""
    report, log = folder / "report.json", folder / "pip.log"
    seconds = run(
        folder / "venv/bin/python", "-m", "pip", "install", "--no-cache-dir", "--log", log,
        "--report", report, "--constraint", CONSTRAINTS, wanted,
    )  # fmt: skip
    downloads = re.findall(r"Downloading \S+ \(([\d.]+) (bytes|kB|MB|GB)\)", log.read_text())
    items = json.loads(report.read_text())["install"]
    urls = [urlsplit(item["download_info"]["url"]) for item in items]
    local = [Path(unquote(url.path)) for url in urls if url.scheme == "file"]
    fetched = sum(float(number) * UNITS[unit] for number, unit in downloads)
    return seconds, int(fetched) + sum(path.stat().st_size for path in local)


def uv_install(folder: Path, wanted: str) -> tuple[float, int | None]:
    """Installs with uv; what was fetched is not known, because its cache holds unpacked files."""
    seconds = run(
        sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", folder / "venv",
        "--constraint", CONSTRAINTS, "--link-mode", "copy", wanted,
        UV_CACHE_DIR=str(folder / "cache"),
    )  # fmt: skip
    return seconds, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", nargs="?", type=Path)
    parser.add_argument("--extras", default="gguf", help="e.g. gguf,diversity; empty for none")
    parser.add_argument("--with", nargs="+", choices=("pip", "uv"), default=["pip"], dest="tools")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sf_ray-install-") as place:
        wheel = options.wheel
        if wheel is None:
            run(sys.executable, "-m", "uv", "build", "--wheel", "--out-dir", place, REPOSITORY)
            (wheel,) = Path(place).glob("*.whl")
        wanted = f"{wheel.resolve()}[{options.extras}]" if options.extras else str(wheel.resolve())
        for tool in options.tools:
            folder = Path(place, tool)
            run(sys.executable, "-m", "venv", folder / "venv")
            seconds, fetched = {"pip": pip_install, "uv": uv_install}[tool](folder, wanted)
            print_outcome(tool, seconds, fetched, folder / "venv")


def print_outcome(tool: str, seconds: float, fetched: int | None, venv: Path) -> None:
    (packages,) = venv.glob("lib/python*/site-packages")
    python = venv / "bin/python"
    asked = "import torch; print(torch.__version__)"
    torch = subprocess.run(
        [str(python), "-c", asked], capture_output=True, text=True, check=True
    ).stdout.strip()
    print(f"{tool}: {seconds:.0f} s, torch {torch}")
    if fetched is not None:
        print(f"  fetched           {fetched / 1e6:8,.0f} MB")
    print(f"  site-packages     {size_of(packages) / 1e6:8,.0f} MB")
    print(f"  packages          {len(list(packages.glob('*.dist-info'))):8,}")
    sizes = sorted(((size_of(path), path.name) for path in packages.iterdir()), reverse=True)
    for size, name in sizes[:LARGEST]:
        print(f"    {name:16}{size / 1e6:8,.0f} MB")
    print(f"  wheel             {size_of(packages / 'sf_ray') / 1e6:8,.1f} MB of it are sf_ray")


if __name__ == "__main__":
    main()
