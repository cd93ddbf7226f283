"""Without torch or JAX, what needs it is not collected."""

import importlib.util

NEEDS = {
    "torch": [
        "pot_semidiscrete/generative",
        "pot_semidiscrete/backend/torch_backend.py",
        "pot_semidiscrete/kernels/torch_kernel.py",
        "doc/index.rst",
        "doc/long_runs.rst",
        "doc/theory.rst",
    ],
    "jax": ["pot_semidiscrete/backend/jax_backend.py"],
}

collect_ignore = [
    path
    for library, paths in NEEDS.items()
    if importlib.util.find_spec(library) is None
    for path in paths
]
