"""Lists by text vectors in fp32 and in int8: `own_int8_recall THREADS OVERRIDE... OUTPUT`.

The encoder is the bundled one, as the row of encoding has it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.int8_recall import compare
from conf.composition.compose import compose_command
from conf.encoders import TextEncoderConfig
from encoders.text.text_encoder import load_text_encoder

MAX_TOKENS = 64


def main() -> None:
    """Compare over all queries, and write the differences."""
    threads, overrides, output = sys.argv[1], sys.argv[2:-1], Path(sys.argv[-1])
    torch.set_num_threads(int(threads))
    config = compose_command("evaluate", overrides)
    encoder = load_text_encoder(TextEncoderConfig(max_tokens=MAX_TOKENS)).eval()
    found = [asdict(one) for one in compare(config, encoder, 0, Console())]
    output.write_text(json.dumps({"differences": found}))


if __name__ == "__main__":
    main()
