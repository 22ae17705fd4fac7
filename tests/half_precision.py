"""What losses compute in: in float32 at least, also of scores in half precision."""

import pytest
import torch

each_precision = pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
