"""longtake on MindSpore: `nn`, `ops` and `runtime` with the names of their PyTorch counterparts."""

import os

# The oneDNN that MindSpore 2.10 carries computes convolutions with a reference loop if it finds AVX-512: one of
# 64 channels, 3x3x3, takes 27 times as long as with AVX2. It reads this once, at its first use.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
