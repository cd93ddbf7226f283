"""Packaging of pot_semidiscrete."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "pot_semidiscrete/__init__.py").read_text())[1]
REPOSITORY = ""  # address of the files of a release: where there is one, the README's pictures show

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
TOOLS = ["ruff>=0.9", "numpydoc>=1.8", "mypy>=1.11"]
TEST = EXAMPLES + ["pytest>=8", "hypothesis>=6.100", "threadpoolctl>=3"] + TOOLS


def long_description():
    """The README, whose pictures have whole addresses, or stand aside while there is none."""
    picture = re.compile(r"^\.\. (?:image|figure):: (?!https?:)(\S+)\n(?:[ ]+:.*\n)*", re.MULTILINE)

    def whole(match):
        return match[0].replace(match[1], f"{REPOSITORY}/{match[1]}") if REPOSITORY else ""

    return picture.sub(whole, (ROOT / "README.rst").read_text(encoding="utf-8"))


setup(
    name="pot_semidiscrete",
    version=VERSION,
    description="Semi-discrete optimal transport beside POT, and generators trained by it",
    long_description=long_description(),
    long_description_content_type="text/x-rst",
    author="The pot_semidiscrete developers",
    license="MIT",
    license_files=["LICENSE"],
    keywords=[
        "optimal transport",
        "semi-discrete optimal transport",
        "entropic regularisation",
        "generative models",
        "flow matching",
        "PyTorch",
    ],
    project_urls={
        "Paper": "https://arxiv.org/abs/2102.05542",
        "POT": "https://pythonot.github.io",
    },
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
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Mathematics",
        "Typing :: Typed",
    ],
)
