"""`sf-ray report`: the report of a finished run, made again."""

from sf_ray.commands.locations import location_of
from sf_ray.config.options import ReportOptions
from sf_ray.output.layout import Output
from sf_ray.output.report.files import read_run, write_report


def report(options: ReportOptions) -> None:
    """Makes the report of a finished run again."""
    output = Output(location_of(options, options.output))
    write_report(output, *read_run(output))
    print(f"report   {output.page.public_uri}")
