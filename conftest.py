"""Without torch, what needs it is not collected."""

import importlib.util

if importlib.util.find_spec("torch") is None:
    collect_ignore = [
        "pot_semidiscrete/generative",
        "pot_semidiscrete/kernels/_torch.py",
        "doc/index.rst",
        "doc/long_runs.rst",
        "doc/theory.rst",
    ]
