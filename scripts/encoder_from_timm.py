"""Take the encoder out of a checkpoint of timm's training script, for ``NNUNET_ATTN_PRETRAINED``.

  python scripts/encoder_from_timm.py output/train/RUN/model_best.pth.tar dcaunet_encoder.pth

Prefers the averaged weights (EMA). A JSON file beside the output says data, epochs and top-1.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import torch


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    if not options.checkpoint.is_file():
        print(f"{options.checkpoint} does not exist", file=sys.stderr)
        return 1
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(options.checkpoint, map_location="cpu", weights_only=True)
    key = next((k for k in ("state_dict_ema", "state_dict") if k in content), None)
    weights = content[key] if key else {}
    encoder = {k.removeprefix("module."): v for k, v in weights.items()}
    encoder = {k.removeprefix("encoder."): v for k, v in encoder.items() if k.startswith("encoder.")}
    if not encoder:
        print(f"{options.checkpoint} is no checkpoint of timm's train.py of dcaunet_encoder", file=sys.stderr)
        return 1
    torch.save(encoder, options.output)
    arguments = vars(content["args"]) if isinstance(content.get("args"), argparse.Namespace) else {}
    facts = {
        "model": content.get("arch"), "weights": key, "epoch": content.get("epoch"), "epochs": arguments.get("epochs"),
        "data": arguments.get("data_dir") or arguments.get("dataset"), "top1": content.get("metric"),
        "sha256": hashlib.sha256(options.output.read_bytes()).hexdigest(),
    }  # fmt: skip
    options.output.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{options.output}: {len(encoder)} tensors of {key}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
