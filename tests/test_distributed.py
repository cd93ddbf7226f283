"""Several processes: the results of one, and no hang when one of them ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("needs torch.distributed", allow_module_level=True)

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


def test_two_ranks(tmp_path):
    codes, texts = launch("two", 2, tmp_path)
    assert codes == [0, -9], "\n".join(texts)  # the second is killed in the end


def test_four_ranks(tmp_path):
    codes, texts = launch("four", 4, tmp_path)
    assert codes == [0] * 4, "\n".join(texts)
