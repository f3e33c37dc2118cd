"""The script that a careful person would write by hand: the same loop, without the runner.

It prints "warm" after the warm-up, and the p50 in seconds at the end. It imports nothing of the project, so that it
can't share its faults. The other benchmarks start it by ipexrun.
"""

import argparse
import statistics
import time

import torch
from torch import nn


def main() -> None:
    """Build a model, warm up, time it and print the p50."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=["resnet50", "bert_base_uncased", "conv_relu"])
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--ipex", choices=["off", "on"], default="off")
    parser.add_argument("--inputs", type=int, default=2)
    parser.add_argument("--warmup", type=int, required=True)
    parser.add_argument("--iterations", type=int, required=True)
    options = parser.parse_args()

    torch.manual_seed(0)
    size = options.batch_size
    inputs: list[tuple[torch.Tensor, ...]]
    if options.model == "resnet50":
        import torchvision

        model = torchvision.models.resnet50(weights=None)
        inputs = [(torch.rand(size, 3, 224, 224),) for _ in range(options.inputs)]
    elif options.model == "bert_base_uncased":
        from transformers import BertConfig, BertModel

        model = BertModel(BertConfig())  # type: ignore[no-untyped-call]  # transformers is typed in parts
        tokens = [torch.randint(0, model.config.vocab_size, (size, 128)) for _ in range(options.inputs)]
        inputs = [(ids, torch.ones_like(ids)) for ids in tokens]
    else:
        model = nn.Sequential(nn.Conv2d(16, 33, 3, stride=2), nn.ReLU())
        inputs = [(torch.rand(size, 16, 50, 100),) for _ in range(options.inputs)]
    model.eval()
    with torch.inference_mode():
        if options.ipex == "on":
            import intel_extension_for_pytorch as ipex

            model = ipex.optimize(model, dtype=torch.float32, sample_input=inputs[0])
        for i in range(options.warmup):
            output = model(*inputs[i % len(inputs)])
        print("warm", flush=True)
        latencies_ns = []
        for i in range(options.iterations):
            x = inputs[i % len(inputs)]
            start = time.perf_counter_ns()
            output = model(*x)
            latencies_ns.append(time.perf_counter_ns() - start)
        first = output if isinstance(output, torch.Tensor) else output[0]
        if not first.isfinite().all():
            raise ValueError("the last output is not finite")
    print(statistics.median(latencies_ns) / 1e9)


if __name__ == "__main__":
    main()
