"""The devices a test runs on."""

from typing import Final

import pytest
import torch

DEVICES: Final = (
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")),
)
