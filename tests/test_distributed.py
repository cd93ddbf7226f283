"""Several processes: the results of one, and no hang when one of them ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("needs torch.distributed", allow_module_level=True)

from pot_semidiscrete import generative  # noqa: E402
from tests import ranks  # noqa: E402

ROOT = Path(__file__).parent.parent
LONGEST = 60.0  # seconds after which ranks hang
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def launch(case, size, folder):
    """Run a case of `tests/ranks.py` on so many ranks; exit codes and what they print."""
    command = [sys.executable, "-m", "tests.ranks", case]
    options = {"cwd": ROOT, "env": ENVIRONMENT, "text": True}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    ranks = [
        subprocess.Popen([*command, str(rank), str(size), str(folder)], **options, **streams)
        for rank in range(size)
    ]
    try:
        texts = [process.communicate(timeout=LONGEST)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    return [process.returncode for process in ranks], texts


def test_ranks(tmp_path):
    """Two, the second of which is killed in the end; of whose checkpoint four go on, and then one."""
    codes, texts = launch("two", 2, tmp_path)
    assert codes == [0, -9], "\n".join(texts)
    codes, texts = launch("four", 4, tmp_path)
    assert codes == [0] * 4, "\n".join(texts)
    generator, n_drawn = torch.nn.Linear(2, 3, dtype=torch.float64), []
    run = generative.train_generator(
        *(generator, 2, ranks.atoms(50)),
        **{"n_steps": 16, "batch_size": 24, "dual_steps": 3, "reuse": 4, "reg": 0.05},
        **{"random_state": 0, "checkpoint": tmp_path / "run.pt", "checkpoint_every": 3},
        optimizer=torch.optim.Adam,
        callback=lambda result: n_drawn.append(result.n_steps),
    )
    assert n_drawn == [16]
    assert run.status == "finished"
