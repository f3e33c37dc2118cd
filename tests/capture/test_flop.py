"""Floating-point operations of oneDNN's primitives, by their problem descriptors."""

from __future__ import annotations

import pytest

from runner.capture import flop, kernels, onednn
from tests.conftest import ROOT

LOGS = ROOT / "tests/data/onednn-verbose"


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("convolution", "mb2_ic3oc8_ih16oh14kh3sh1dh0ph0_iw16ow14kw3sw1dw0pw0", 2 * 2 * 8 * 14 * 14 * 27),
        ("convolution", "g4mb2_ic8oc8_ih16oh14kh3sh1dh0ph0_iw16ow14kw3sw1dw0pw0", 2 * 2 * 8 * 14 * 14 * 2 * 9),
        ("convolution", "mb1_ic3oc8_id4od2kd3sd1dd0pd0_ih5oh3kh3sh1dh0ph0_iw6ow4kw3sw1dw0pw0", 2 * 8 * 24 * 81),
        ("convolution", "mb3_ic4oc5_iw9ow7kw3sw1dw0pw0", 2 * 3 * 5 * 7 * 12),
        ("deconvolution", "mb2_ic3oc8_ih7oh15kh3sh2dh0ph0_iw7ow15kw3sw2dw0pw0", 2 * 2 * 3 * 49 * 72),
        ("inner_product", "mb4ic64oc32", 2 * 4 * 64 * 32),
        ("inner_product", "mb4_ic64ih7iw7oc32", 2 * 4 * 64 * 49 * 32),
        ("matmul", "8x16:16x24", 2 * 8 * 16 * 24),
        ("matmul", "3x8x16:3x16x24", 2 * 3 * 8 * 16 * 24),
        ("matmul", "1x8x16:3x16x24:3x8x24", 2 * 3 * 8 * 16 * 24),
        ("matmul", "b3m8n24k16", 2 * 3 * 8 * 16 * 24),  # oneDNN 2.0
        ("rnn", "l1t3mb2sic8slc8dhc8dic8", None),
        ("matmul", "8x*:16x24", None),
        ("convolution", "torn", None),
    ],
)
def test_the_operations_of_a_primitive_follow_from_its_descriptor(
    kind: str, shape: str, expected: float | None
) -> None:
    assert flop.of_primitive(kind, shape) == expected


@pytest.mark.parametrize("name", ["resnet50_eager", "resnet50_cl"])
def test_a_recorded_resnet50_has_the_operations_of_the_paper(name: str) -> None:
    """4.09 GFLOP of products and sums an image (torchvision's documentation), of which the last layer is MKL's."""
    log = onednn.parse((LOGS / f"{name}.log").read_text().splitlines(keepends=True))
    found = kernels.summarize(log, {}).flop["convolution"]
    assert found is not None
    assert found / 4 / 2 == pytest.approx(4.09e9, rel=0.002)
