"""The files of a run's report, beside the output: report.html, README.md and summary.json."""

from sf_ray.errors import SfRayError
from sf_ray.output.layout import Output
from sf_ray.output.manifest import Manifest
from sf_ray.output.report.card import MARK, render_card
from sf_ray.output.report.page import render_page
from sf_ray.output.report.summary import MOST_BYTES, Summary
from sf_ray.runtime.log import say
from sf_ray.storage.files import put_bytes, read_bounded_or_none


def write_report(output: Output, manifest: Manifest, summary: Summary) -> None:
    """Writes the three files; a README that sf_ray has not written stays, and a note says so."""
    data = summary.to_json()
    put_bytes(output.summary, data)
    # summary.json rounds. The page is made from the rounded numbers, so that `sf-ray report`, which
    # has no others, makes the same page again.
    summary = Summary.from_json(data, output.summary.public_uri)
    put_bytes(output.page, render_page(manifest, summary).encode())
    card = read_bounded_or_none(output.card, MOST_BYTES)
    if card is not None and MARK.encode() not in card:
        say(f"note: {output.card.public_uri} is not of our writing, and stays as it is")
        return
    put_bytes(output.card, render_card(manifest).encode())


def read_run(output: Output) -> tuple[Manifest, Summary]:
    """Reads the manifest of a finished run, and its summary.

    Raises:
        SfRayError: There is no finished run, or one that this version cannot read.
    """
    manifest, where = output.manifest(), output.location.public_uri
    if manifest is None:
        raise SfRayError(
            f"{where}: no manifest.json there, so no finished run; an interrupted one goes on with "
            "the same command"
        )
    data = read_bounded_or_none(output.summary, MOST_BYTES)
    if data is None:
        raise SfRayError(
            f"{where}: no summary.json there; remove manifest.json and run the same command again: "
            "no row is scored again"
        )
    return manifest, Summary.from_json(data, output.summary.public_uri)
