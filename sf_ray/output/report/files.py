"""The report of a run: the page, the data card, and what both show, put beside the output."""

from typing import Any

from sf_ray.errors import SfRayError
from sf_ray.output.layout import Output
from sf_ray.output.report.card import MARK, render_card
from sf_ray.output.report.page import render_page
from sf_ray.output.report.summary import Summary
from sf_ray.runtime.log import say
from sf_ray.storage.files import put_bytes, read_bytes_or_none


def write_report(output: Output, manifest: dict[str, Any], summary: Summary) -> None:
    """Puts report.html, README.md and summary.json; a README of somebody else stays as it is."""
    data = summary.to_json()
    put_bytes(output.summary, data)
    # From what is kept, so that the page can be made again as it was.
    summary = Summary.from_json(data, output.summary.public_uri)
    put_bytes(output.page, render_page(manifest, summary).encode())
    there = read_bytes_or_none(output.card)
    if there is not None and MARK.encode() not in there:
        say(f"note: {output.card.public_uri} is not of our writing, and stays as it is")
        return
    put_bytes(output.card, render_card(manifest).encode())


def read_run(output: Output) -> tuple[dict[str, Any], Summary]:
    """The manifest of a finished run, and what its report shows.

    Raises:
        SfRayError: There is no finished run, or one that this version cannot read.
    """
    manifest, where = output.manifest(), output.location.public_uri
    if manifest is None:
        raise SfRayError(
            f"{where}: no manifest.json there, so no finished run; an interrupted one goes on with "
            "the same command"
        )
    data = read_bytes_or_none(output.summary)
    if data is None:
        raise SfRayError(
            f"{where}: no summary.json there; remove manifest.json and run the same command again: "
            "no row is scored again"
        )
    return manifest, Summary.from_json(data, output.summary.public_uri)
