"""Several processes: the results of one, and no hang when one of them ends; how they are launched."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("needs torch.distributed", allow_module_level=True)

from pot_semidiscrete import generative  # noqa: E402
from tests import ranks  # noqa: E402

ROOT = Path(__file__).parent.parent
LONGEST = 300.0  # seconds after which ranks hang
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def launch(case, size, folder):
    """Run a case of `tests/ranks.py` on so many ranks; exit codes, and what they print."""
    command = [sys.executable, "-m", "tests.ranks", case, str(size), str(folder)]
    options = {"cwd": ROOT, "env": ENVIRONMENT, "text": True, "start_new_session": True}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, **options, **streams) as process:
        try:
            text = process.communicate(timeout=LONGEST)[0]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # the ranks, too
    assert process.returncode == 0, text
    *_, codes = text.splitlines()
    return [int(code) for code in codes.split()], text


@needs_fork
def test_two_ranks(tmp_path):
    """The second of which is killed in the end; from their checkpoint one goes on."""
    codes, text = launch("two", 2, tmp_path)
    assert codes == [0, -signal.SIGKILL], text
    generator, steps = torch.nn.Linear(2, 3, dtype=torch.float64), []
    run = generative.train_generator(
        *(generator, 2, ranks.atoms(50)),
        **{"n_steps": 16, "batch_size": 24, "dual_steps": 3, "reuse": 4, "reg": 0.05},
        **{"random_state": 0, "checkpoint": tmp_path / "run.pt", "checkpoint_every": 3},
        optimizer=torch.optim.Adam,
        callback=lambda result: steps.append(result.n_steps),
    )
    assert steps == [15, 16]
    assert run.status == "finished"


@needs_fork
def test_four_ranks(tmp_path):
    codes, text = launch("four", 4, tmp_path)
    assert codes == [0] * 4, text


def code(language, words):
    """The block of the page that has these words."""
    text = (ROOT / "doc" / "distributed.rst").read_text()
    pattern = rf"\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)"
    blocks = [textwrap.dedent(block) for block in re.findall(pattern, text)]
    (found,) = [block for block in blocks if words in block]
    return found


def shell(script, folder, **variables):
    """Run a script beside ``solve.py``; what it prints."""
    (folder / "solve.py").write_text(code("python", "init_process_group"))
    path = f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-c", script],
        **{"cwd": folder, "env": ENVIRONMENT | variables | {"PATH": path}, "timeout": LONGEST},
        **{"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
    )
    assert run.returncode == 0, run.stdout
    assert (folder / "result.npz").exists()
    return run.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
def test_line_of_torchrun_runs(tmp_path):
    assert shell(code("bash", "--standalone"), tmp_path).count("status='converged'") == 1


def is_free(port):
    """Whether nobody listens at a port of this machine."""
    with socket.socket() as free:
        return free.connect_ex(("localhost", port)) != 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
def test_script_of_slurm_runs(tmp_path):
    """With stand-ins for ``srun`` and ``scontrol``, on one machine, whose one "GPU" is a core."""
    stand_ins = {"srun": 'exec "$@"', "scontrol": "echo localhost"}
    for name, line in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    job = next(job for job in range(os.getpid(), os.getpid() + 100) if is_free(20_000 + job % 10_000))
    facts = {"NNODES": 1, "GPUS_ON_NODE": 1, "JOB_ID": job, "JOB_NODELIST": "localhost"}
    variables = {f"SLURM_{name}": str(value) for name, value in facts.items()}
    assert shell(code("bash", "srun"), tmp_path, **variables).count("status='converged'") == 1
