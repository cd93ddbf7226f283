"""Without torch, JAX or Triton, what needs it is not collected; without a GPU, Triton interprets."""

import importlib.util
import os

NEEDS = {
    "torch": [
        "pot_semidiscrete/generative",
        "pot_semidiscrete/backend/torch_backend.py",
        "pot_semidiscrete/kernels/torch_kernel.py",
        "pot_semidiscrete/kernels/triton_kernel.py",
        "doc/flow_matching.rst",
        "doc/index.rst",
        "doc/long_runs.rst",
        "doc/training.rst",
        "doc/theory.rst",
        "doc/tutorial.rst",
    ],
    "matplotlib": ["doc/tutorial.rst"],
    "triton": [
        "pot_semidiscrete/kernels/triton_kernel.py",
        "pot_semidiscrete/kernels/triton_programs.py",
    ],
    "jax": ["pot_semidiscrete/backend/jax_backend.py"],
}

collect_ignore = [
    path
    for library, paths in NEEDS.items()
    if importlib.util.find_spec(library) is None
    for path in paths
]

if importlib.util.find_spec("torch") and importlib.util.find_spec("triton"):
    import torch

    if not torch.cuda.is_available():  # read when the programs are defined
        os.environ.setdefault("TRITON_INTERPRET", "1")
