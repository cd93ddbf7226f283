"""Ruff, mypy, numpydoc, and the code of the README."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pot_semidiscrete
import pot_semidiscrete.applications
from pot_semidiscrete import costs, kernels, metrics

ROOT = Path(__file__).parent.parent
NUMPYDOC_IGNORED = {
    "ES01",  # an extended summary is not owed
    "SA01",  # nor a "See Also"
    "EX01",  # examples are asked for below, of functions
}
RECEIVED = (  # users receive these and never build them
    "GradientDiagnostics",
    "LabelledPairs",
    "OneSidedDerivatives",
    "Pairs",
    "ParameterResult",
    "BarycenterResult",
    "QuantizationResult",
    "SemiDiscreteCoupling",
    "SemiDiscreteResult",
    "SolverState",
    "TrainingResult",
)


def public():
    """Public names, with those of the torch part where it is installed."""
    names = [f"pot_semidiscrete.{name}" for name in pot_semidiscrete.__all__]
    for face in (pot_semidiscrete.applications, pot_semidiscrete.samplers):
        names += [f"{face.__name__}.{name}" for name in face.__all__]
    try:
        from pot_semidiscrete import generative
    except ImportError:
        return names
    return names + [f"pot_semidiscrete.generative.{name}" for name in generative.__all__]


def resolve(name):
    """What has this full name."""
    module, attribute = name.rsplit(".", 1)
    return getattr(sys.modules[module], attribute)


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["check", "format"])
def test_ruff(command):
    pytest.importorskip("ruff")
    run = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_types(mypy):
    pytest.importorskip("mypy")
    pytest.importorskip("torch")  # or its classes are not known
    said = mypy.communicate()[0]
    assert mypy.returncode == 0, said


@pytest.mark.parametrize("name", public())
def test_numpydoc(name):
    validate = pytest.importorskip("numpydoc.validate")
    errors = [
        f"{code}: {text}"
        for code, text in validate.validate(name)["errors"]
        if code not in NUMPYDOC_IGNORED
        # of what is received, attributes are what matters
        and not (code == "PR01" and name.endswith(RECEIVED))
    ]
    assert not errors


@pytest.mark.parametrize("name", [n for n in public() if n.rsplit(".", 1)[1][0].islower()])
def test_functions_say_what_is_owed(name):
    """Shapes or units, errors, source, and an example that doctest runs."""
    doc = resolve(name).__doc__
    for part in ("Parameters\n", "Returns\n", "Examples\n", ">>> "):
        assert part in doc
    if not name.endswith(("mlp_generator", "dcgan_generator")):
        assert "Raises\n" in doc
    if not name.endswith(("cost_scale", "register_law", "mlp_generator", "dcgan_generator")):
        assert "References\n" in doc


def test_the_page_of_the_api_lists_every_public_name():
    listed = {line.strip() for line in (ROOT / "doc" / "api.rst").read_text().splitlines()}
    names = public() + [
        f"{face.__name__}.{n}" for face in (metrics, costs, kernels) for n in face.__all__
    ]
    missing = {name.removeprefix("pot_semidiscrete.") for name in names} - listed
    assert not missing


def test_the_gallery_has_a_place_for_every_example():
    """Without, a script comes last, and has the thumbnail of its whole figure."""
    page = (ROOT / "doc" / "gallery.py").read_text()
    placed = re.findall(r'^    "(plot_\w+)": \(', page, re.MULTILINE)
    assert sorted(placed) == sorted(path.stem for path in (ROOT / "examples").glob("plot_*.py"))


def test_the_version_is_the_same_everywhere():
    """In the package, its citation, and the news, which may tell of a version to come before it."""
    version = pot_semidiscrete.__version__
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    news = re.findall(r"^(.+)\n-+$", (ROOT / "doc" / "whats_new.rst").read_text(), re.MULTILINE)
    assert version in news[:2]


def readme_blocks():
    """Blocks of Python in the README."""
    text = (ROOT / "README.rst").read_text()
    blocks = re.findall(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", text)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in blocks]


def test_readme_has_its_blocks():
    blocks = readme_blocks()
    assert ["solve" in blocks[0], "Pairs" in blocks[1], "train" in blocks[2]] == [True] * 3
    for block in blocks:
        assert len([line for line in block.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("number", [0, 1, 2])
def test_readme_runs(number, capsys):
    block = readme_blocks()[number]
    if "torch" in block:
        pytest.importorskip("torch")
    exec(compile(block, "README.rst", "exec"), {})
    if number == 0:
        assert "status='converged'" in capsys.readouterr().out
