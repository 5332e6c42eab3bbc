"""Settings of the whole suite."""

import os

# Before torch loads, as the command line does it: waiting threads that spin slow a busy machine down many times.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton loads, which torch itself does now and then

torch.set_num_threads(1)  # the networks of the tests are tiny; handing work to threads costs more than it saves
