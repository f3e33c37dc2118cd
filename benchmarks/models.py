"""Which models of torchvision and transformers run, with and without IPEX? Writes the table of docs/models.md.

    python -m benchmarks.models                      all of them: about three quarters of an hour
    python -m benchmarks.models --only hf:gpt2       some of them; the table is only printed

Each model runs in the two cells of ipex=off,on, at batch 1, with its own inputs: built, proved, and compared with
fp32. Latencies are not shown: three iterations of one process say whether a model runs, and not how fast it is. The
exit status is 0 if every cell ran or is excluded.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from runner.results.outcome import CellRecord, read_cell

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- python -m benchmarks.models writes this table -->", "<!-- end of the table -->"
# (kind, models) in the order of the table.
MODELS: Sequence[tuple[str, Sequence[str]]] = (
    (
        "classification",
        (
            "torchvision:alexnet", "torchvision:convnext_tiny", "torchvision:densenet121",
            "torchvision:efficientnet_b0", "torchvision:googlenet", "torchvision:inception_v3",
            "torchvision:maxvit_t", "torchvision:mnasnet1_0", "torchvision:mobilenet_v2",
            "torchvision:mobilenet_v3_large", "torchvision:regnet_y_400mf", "torchvision:resnet18",
            "torchvision:resnext50_32x4d", "torchvision:shufflenet_v2_x1_0", "torchvision:squeezenet1_1",
            "torchvision:swin_t", "torchvision:vgg11", "torchvision:vit_b_16",
        ),
    ),
    (
        "detection",
        (
            "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", "torchvision:retinanet_resnet50_fpn",
            "torchvision:ssdlite320_mobilenet_v3_large",
        ),
    ),
    (
        "segmentation",
        (
            "torchvision:deeplabv3_mobilenet_v3_large", "torchvision:fcn_resnet50",
            "torchvision:lraspp_mobilenet_v3_large",
        ),
    ),
    ("video", ("torchvision:mc3_18", "torchvision:r3d_18", "torchvision:s3d")),
    ("optical flow", ("torchvision:raft_small",)),
    (
        "text",
        (
            "hf:bert-base-uncased", "hf:distilbert-base-uncased", "hf:roberta-base", "hf:albert-base-v2", "hf:gpt2",
            "hf:HuggingFaceTB/SmolLM2-135M", "hf:t5-small", "hf:facebook/bart-base",
        ),
    ),
    (
        "images, sound, both",
        (
            "hf:google/vit-base-patch16-224", "hf:microsoft/swin-tiny-patch4-window7-224",
            "hf:facebook/convnext-tiny-224", "hf:openai/whisper-tiny", "hf:facebook/wav2vec2-base",
            "hf:openai/clip-vit-base-patch32",
        ),
    ),
)  # fmt: skip
SWEEP = ("ipex=off,on", "batch_size=1", "iterations=3", "warmup=2", "rounds=1", "capture=[]", "reruns=0")


def run(models: Sequence[str], mlruns: Path) -> list[CellRecord]:
    """One sweep of these models; every cell that has an outcome, also one that was refused."""
    words = [sys.executable, "-m", "runner", "-m", f"model={','.join(models)}", *SWEEP, f"mlruns={mlruns}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout[-4000:], done.stderr[-4000:], flush=True)
    sweeps = sorted((mlruns / "sweeps").iterdir()) if (mlruns / "sweeps").exists() else []
    cells = sorted((sweeps[-1] / "cells").iterdir()) if sweeps else []
    return [record for cell in cells if (record := read_cell(sweeps[-1], cell.name)) is not None]


def inputs(records: Sequence[CellRecord]) -> str:
    """The shapes of a model's inputs, as a worker saw them."""
    evidence = next((result.evidence for record in records for result in record.results.values()), None)
    shapes = (evidence.tensors.inputs.shapes if evidence else None) or []
    return ", ".join("x".join(map(str, shape)) for shape in shapes) or "-"


def outcome(record: CellRecord | None) -> str:
    """What became of a cell, in words."""
    if record is None:
        return "excluded"
    if record.failure:
        return f"failed: {' '.join(record.failure.split())}"
    quality = record.outcomes[0].quality
    return "runs" if quality in ("", "ok") else f"runs; its output is {quality}"


def rows(kind: str, models: Sequence[str], records: Sequence[CellRecord]) -> Iterator[str]:
    """A line of the table for each model."""
    for model in models:
        own = {record.axes["ipex"]: record for record in records if record.axes["model"] == model}
        cells = [kind, f"`{model}`", inputs(list(own.values())), outcome(own.get("off")), outcome(own.get("on"))]
        yield "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def main() -> int:
    """Run the models and write the table; the exit status is 0 if none failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="the models to run; the page stays as it is")
    parser.add_argument("--at-once", type=int, default=4, help="models per sweep (default: %(default)s)")
    options = parser.parse_args()
    lines = ["| kind | model | inputs | ipex=off | ipex=on |", "|---|---|---|---|---|"]
    with TemporaryDirectory() as folder:
        for kind, models in MODELS:
            chosen = [model for model in models if not options.only or model in options.only]
            for start in range(0, len(chosen), options.at_once):
                some = chosen[start : start + options.at_once]
                lines += rows(kind, some, run(some, Path(folder)))
                print("\n".join(lines), flush=True)
    if not options.only:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        text = "\n".join(lines)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return int(any("failed" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
