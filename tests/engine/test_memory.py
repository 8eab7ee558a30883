import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from sf_ray.engine.memory import KEYS_PER_TOKEN, cuda_token_budget

# Prints by how many bytes each of four processes grew, and the bound of its engine. They are forks
# of one process that has imported everything and computed nothing, so that imports count as theirs
# from the start.
GROWTH = """
import os
import sys
import numpy as np
from pathlib import Path
from sf_ray.engine.engine import Engine
from sf_ray.engine.memory import keep_freed_memory
from sf_ray.engine.sequences import TokenSequence, TokenSequences

def status_bytes(key):
    return int(Path("/proc/self/status").read_text().split(key)[1].split()[0]) << 10

def grow(dtype, budget):
    keep_freed_memory()
    engine = Engine(Path(sys.argv[1]), dtype=dtype, token_budget=budget)
    rng = np.random.default_rng(0)
    lengths = [*rng.integers(2, 1025, 6), 1024, 1024]
    ids = [rng.integers(0, 300, n).astype(np.int32) for n in lengths]
    pool = TokenSequences.of([TokenSequence.scored_from(i, 1) for i in ids])
    before = status_bytes("VmRSS:")
    engine.losses(pool)
    growth = status_bytes("VmHWM:") - before
    print(dtype, budget, growth, engine.memory_bound(1024), flush=True)

for dtype in ("float32", "bfloat16"):
    for budget in (256, 4096):
        child = os.fork()
        if not child:
            grow(dtype, budget)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("free", [1 << 30, 3 << 30, 5 << 30])
def test_a_cards_batch_fits_into_half_of_its_memory(free: int) -> None:
    config = LlamaConfig(
        hidden_size=512, intermediate_size=2048, num_attention_heads=8, num_key_value_heads=2
    )
    budget = cuda_token_budget(config, free)
    needed = 2 * 4 * (8 * 2048 + 16 * 512 + KEYS_PER_TOKEN * 2 * 512 // 4)
    assert budget * needed <= free // 2 < (budget + 1) * needed
    assert cuda_token_budget(config, 1 << 60) == 65536


@pytest.mark.release
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_memory_stays_below_what_the_budget_promises(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=8000,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    command = [sys.executable, "-c", GROWTH, str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in printed.splitlines()]
    assert [line[:2] for line in lines] == [
        [dtype, budget] for dtype in ("float32", "bfloat16") for budget in ("256", "4096")
    ]
    for dtype, budget, grown, bound in lines:
        assert 0 < int(grown) <= int(bound), (dtype, budget)
