"""Doctests are taken from the package as well; those of the other framework's side are for that framework's run.

To import that side is more than useless: MindSpore's makes oneDNN do without AVX-512 in the whole process and in those
that it starts, and PyTorch's bfloat16 is 20 times as slow then.
"""

import os

OTHER = "torch" if os.environ.get("LONGTAKE_BACKEND") == "mindspore" else "mindspore"
collect_ignore = [f"src/longtake/backend/{OTHER}"]
