"""What a device can do at most: copies, and matrix products of a model's shapes.

python bench/ceilings.py [--device cuda] [--model demo] [--dtype float16] [--figures FILE]

Prints TB/s of a copy, and TFLOP/s of a square product in float16 and bfloat16, of each shape that
the model multiplies with, and of tiles of an LM head with and without an aligned width.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter

import torch
from common import record

from sf_ray.engine.flops import cost_of_config
from sf_ray.engine.layers import onednn
from sf_ray.engine.model_files import resolve_model

# Of a product: as many tokens as a batch has, for so many seconds, so many times. A CPU's rate
# drifts, a card's does not.
_TOKENS = {"cpu": 1024, "cuda": 65536}
# On CUDA so many calls are launched before anything waits for them: the wait takes as long as one.
_LAUNCHED = {"cpu": 1, "cuda": 16}
_PRODUCT_S, _ROUNDS = {"cpu": 0.1, "cuda": 0.02}, {"cpu": 4, "cuda": 1}
# Weight of the square product: large enough that memory does not bound it.
SQUARE = {"cpu": torch.Size((1024, 1024)), "cuda": torch.Size((8192, 8192))}
_COPY_BYTES = {"cpu": 1 << 20, "cuda": 1 << 31}
# Columns of GPT-2's second tile as they come, and rounded up to a multiple of 64.
_HEAD_TILES = {"odd": torch.Size((17489, 768)), "aligned": torch.Size((17536, 768))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--figures", help="file to which figures are appended")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
        record(options.figures, {"card": torch.cuda.get_device_name()})
    copied = copied_bytes_per_s(device) / 1e12
    print(f"copy {copied:.3g} TB/s")
    record(options.figures, {"copy.TB_per_s": copied})
    square = SQUARE[device.type]
    for dtype in ("float16", "bfloat16") if device.type == "cuda" else ("float32",):
        rate = max(rates_of([square], device, dtype, "cuda")[square])
        print(f"square product, {dtype}: {rate / 1e12:.3g} TFLOP/s")
        record(options.figures, {f"square.{dtype}.TFLOP_per_s": rate / 1e12})
    cost = cost_of_config(resolve_model(options.model).path)
    shapes = {f"weight {tuple(s)}": torch.Size(s) for s in (*cost.layers, cost.head)}
    shapes |= {f"head tile, {name} {tuple(s)}": s for name, s in _HEAD_TILES.items()}
    rates = rates_of(list(shapes.values()), device, options.dtype, "cuda")
    for name, shape in shapes.items():
        print(f"{name}: {max(rates[shape]) / 1e12:.3g} TFLOP/s in {options.dtype}")
    odd, aligned = (max(rates[tile]) for tile in _HEAD_TILES.values())
    record(options.figures, {"head.aligned_over_odd": aligned / odd})


def copied_bytes_per_s(device: torch.device) -> float:
    """Bytes that are read and written in a second while memory is copied on a device."""
    source = torch.empty(_COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) * calls_per_s(lambda: target.copy_(source), device)


def rates_of(
    shapes: Sequence[torch.Size], device: torch.device, dtype: str, effort: str | None = None
) -> dict[torch.Size, list[float]]:
    """FLOP/s of matrix products with weights of these shapes; the shapes take turns.

    On CPU each product is measured with PyTorch's own layout of the weight and with oneDNN's; the
    faster one counts.

    Args:
        shapes: Shapes of the weights.
        device: Where they are.
        dtype: Their type.
        effort: Measure for as long as on "cpu" or on "cuda"; None: as on the device.
    """
    effort = effort or device.type
    rates: dict[torch.Size, list[float]] = {shape: [] for shape in shapes}
    options = {"device": device, "dtype": getattr(torch, dtype)}
    tokens = {shape: min(_TOKENS[device.type], (1 << 32) // shape[0]) for shape in shapes}
    inputs = {shape: torch.randn(tokens[shape], shape[1], **options) for shape in shapes}
    products = {
        shape: _products_with(torch.randn(shape, **options), tokens[shape]) for shape in shapes
    }
    for _ in range(_ROUNDS[effort]):
        for shape in shapes:
            flops = 2.0 * tokens[shape] * shape.numel()
            calls = (partial(multiply, inputs[shape]) for multiply in products[shape])
            rates[shape].append(flops * max(calls_per_s(call, device, effort) for call in calls))
    return rates


def _products_with(weight: torch.Tensor, tokens: int) -> list[Callable[[torch.Tensor], object]]:
    """Ways to multiply this number of tokens by a weight."""
    ways: list[Callable[[torch.Tensor], object]] = [
        partial(torch.nn.functional.linear, weight=weight)
    ]
    if weight.device.type == "cpu" and onednn.supports(weight.dtype):
        ways.append(partial(onednn.linear, weight=onednn.reorder_weight(weight, tokens)))
    return ways


def calls_per_s(call: Callable[[], object], device: torch.device, effort: str = "cuda") -> float:
    """How often a call is done in a second, after one to warm up."""
    call()
    synchronize(device)
    start, done = perf_counter(), 0
    while perf_counter() - start < _PRODUCT_S[effort]:
        for _ in range(_LAUNCHED[device.type]):
            call()
        synchronize(device)
        done += _LAUNCHED[device.type]
    return done / (perf_counter() - start)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
