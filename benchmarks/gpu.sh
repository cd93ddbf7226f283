#!/usr/bin/env bash
# What needs a GPU, in ten minutes at most: the tests, and the figures of benchmarks/gpu.py, written to FILE.
# A second run with the same FILE adds what is missing.
#
#   benchmarks/gpu.sh [FILE [arguments of benchmarks.gpu]]
#
# PYTHON is the interpreter, MINUTES (6) those after which no figure is begun. DEVICE=cpu shows that the
# script is sound: give it a small --case, and TRITON_INTERPRET=1 in the environment.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
device=${DEVICE:-cuda}
file=${1:-benchmarks/results/gpu.json}
shift || true
if [ "$device" = cuda ]; then
    timeout 60 "$python" -m pip install --quiet --no-deps flash-sinkhorn pykeops keopscore pybind11 ||
        echo "flash-sinkhorn and KeOps could not be installed: figures without them"
    timeout 150 "$python" -m pytest -q tests/test_triton.py tests/test_cuda.py -k "not trains" ||
        echo "tests failed, or took too long: see above"
fi
timeout "$(awk "BEGIN { print int(60 * ${MINUTES:-6}) + 20 }")" \
    "$python" -m benchmarks.gpu --device "$device" --minutes "${MINUTES:-6}" --json "$file" "$@"
