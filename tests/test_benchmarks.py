"""Each benchmark runs, with the least of everything, and writes what it found."""

import importlib
import json
import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("threadpoolctl")

LEAST = {
    "certificates": "--seeds 2 --truths 1 --problems normal_line",
    "correction": "--seeds 2 --samples 512 --problems normal_line",
    "kernels": "--rounds 1",
    "quasi": "--seeds 2 --samples 512",
    "solver": "--seeds 2 --samples 512 --problems normal_line --solvers ours POT",
}
SMALLER = {
    "kernels": {"CASES": [(32, 500, 64, 0.01)]},
    "quasi": {"NAMES": ("normal_line",), "DIMENSIONS": ()},
    "solver": {"GOAL_SAMPLES": 2048, "UNREGULARISED": ()},
}


@pytest.mark.parametrize("name", LEAST)
def test_benchmark_runs_and_writes_its_results(name, monkeypatch, tmp_path):
    module = importlib.import_module(f"benchmarks.{name}")
    for constant, value in SMALLER.get(name, {}).items():
        monkeypatch.setattr(module, constant, value)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)  # it would stay for other tests
    path = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", [name, *LEAST[name].split(), "--json", str(path)])
    module.main()
    found = json.loads(path.read_text())
    assert found["machine"]["numpy"]
    assert found["accuracy" if name == "solver" else "rows"]
