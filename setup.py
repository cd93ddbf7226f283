"""Packaging of pot_semidiscrete."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "pot_semidiscrete/__init__.py").read_text())[1]

TORCH = ["torch>=2.4"]
PLOT = ["matplotlib>=3.7"]
EXAMPLES = TORCH + PLOT + ["scikit-learn>=1.3", "tqdm>=4.60"]
DOC = EXAMPLES + [
    "sphinx>=7",
    "sphinx-gallery>=0.17",
    "numpydoc>=1.8",
    "sphinx-mathjax-offline>=0.0.2",
    "pydata-sphinx-theme>=0.15",
    "sphinx-design>=0.6",
    "sphinx-copybutton>=0.5",
]
TRITON = TORCH + ["triton>=3.4; platform_system == 'Linux'"]
FLOW = TORCH + ["torchcfm>=1.0", "flow_matching>=1.0", "torchdata>=0.11"]
TEST = EXAMPLES + ["pytest>=8", "hypothesis>=6.100", "ruff>=0.9", "numpydoc>=1.8", "mypy>=1.11"]

setup(
    name="pot_semidiscrete",
    version=VERSION,
    description="Semi-discrete optimal transport beside POT, and generators trained by it",
    long_description=(ROOT / "README.rst").read_text(),
    long_description_content_type="text/x-rst",
    license="MIT",
    python_requires=">=3.11",
    package_data={"pot_semidiscrete": ["py.typed"]},
    packages=find_packages(include=["pot_semidiscrete", "pot_semidiscrete.*"]),
    install_requires=["numpy>=1.25", "scipy>=1.10", "POT>=0.9.7"],
    extras_require={
        "torch": TORCH,
        "plot": PLOT,
        "triton": TRITON,
        "flow": FLOW,
        "examples": EXAMPLES,
        "doc": DOC,
        "test": TEST,
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering",
    ],
)
