"""`sf-ray report`: the report of a finished run, made again."""

from sf_ray.commands.locations import location_of
from sf_ray.config.options import ReportOptions
from sf_ray.output.layout import Output
from sf_ray.output.report.files import read_run, write_report
from sf_ray.runtime.console import emit
from sf_ray.text.printable import printable


def report(options: ReportOptions) -> None:
    """Makes the report of a finished run again."""
    output = Output(location_of(options, options.output))
    write_report(output, *read_run(output))
    emit(f"report   {printable(output.page.public_uri)}")
