"""What was predicted of a card before anybody saw one, so that a figure can surprise.

"estimated" is arithmetic on FLOPs and bytes, with the rates of products and copies that such a card
reaches elsewhere; "emulated" is a computation on CPU with operands rounded as the type would;
"wanted" is what the design is worth its code for. `bench/card.py` prints these beside the figures.
"""

from typing import NamedTuple


class Prediction(NamedTuple):
    """Attributes: the figure's name; its value on an H100 and on an H200; where that comes from."""

    figure: str
    h100: str
    h200: str
    how: str


PREDICTIONS = (
    Prediction("copy.TB_per_s", "3.0", "4.3", "measured elsewhere"),
    Prediction("square.float16.TFLOP_per_s", "800", "790", "measured elsewhere"),
    Prediction("square.bfloat16.TFLOP_per_s", "800", "790", "measured elsewhere"),
    Prediction("head.aligned_over_odd", "over 1", "over 1", "estimated"),
    Prediction("launches.host, ms a batch", "4 to 8", "4 to 8", "estimated"),
    Prediction("launches.host / whole", "under 0.5", "under 0.5", "estimated"),
    Prediction("launches.equal bits again", "1", "1", "wanted"),
    Prediction("launches.equal bits alone", "1", "1", "wanted"),
    Prediction("alpaca.float16.of_square", "0.40", "0.48", "estimated; 0.45 wanted"),
    Prediction("alpaca.float16.rows_per_s", "3,680", "4,290", "estimated"),
    Prediction("alpaca.eager.of_square", "0.18", "0.23", "estimated"),
    Prediction("alpaca.eager.rows_per_s", "1,600", "2,080", "estimated"),
    Prediction("alpaca.alone / padded", "1.15 or more", "1.15 or more", "wanted"),
    Prediction("alpaca.fed by padded batches / tokens", "1.15", "1.15", "counted on CPU"),
    Prediction("alpaca.float16 / bfloat16", "1.0", "1.0", "estimated"),
    Prediction("alpaca.float16 / one-unit", "0.97 to 1", "0.97 to 1", "estimated"),
    Prediction("alpaca.head TFLOP/s", "500 to 600", "500 to 600", "estimated"),
    Prediction("alpaca.seconds of 52,002 rows", "14", "12", "estimated; under 20 wanted"),
    Prediction("alpaca.float16.ifd.median", "5.4e-4", "5.4e-4", "emulated on 99 rows"),
    Prediction("alpaca.float16.ifd.max", "6.3e-3", "6.3e-3", "emulated on 99 rows"),
    Prediction("alpaca.bfloat16.ifd.median", "4.5e-3", "4.5e-3", "emulated on 99 rows"),
    Prediction("alpaca.bfloat16.ifd.max", "3.6e-2", "3.6e-2", "emulated on 99 rows"),
    Prediction("t0.time saved / tokens saved", "0.8 or more", "0.8 or more", "wanted"),
    Prediction("system.time saved / tokens saved", "0.8 or more", "0.8 or more", "wanted"),
    Prediction("pipeline.bare engine / job once its actors run", "0.95", "0.95", "wanted"),
    Prediction("feeding-alpaca.reading, rows/s/core", "5,000 or more", "5,000 or more", "wanted"),
    Prediction("feeding-alpaca.actor, us/row", "15 or less", "15 or less", "wanted"),
    Prediction("feeding-t0.reading, rows/s/core", "5,000 or more", "5,000 or more", "wanted"),
    Prediction("feeding-t0.actor, us/row", "15 or less", "15 or less", "wanted"),
)
