#!/usr/bin/env bash
# What needs a GPU, in ten minutes at most: the tests, and the figures of benchmarks/gpu.py, written to FILE.
# A second run with the same FILE adds what is missing. In the time that is left, the headline of
# benchmarks/scaling.py, written to FILE less .json, with _headline.json. Where MNIST is the folder of its
# files, a generator is trained before that, on 60,000 images for TRAINING (60) seconds: _training.json.
#
#   benchmarks/gpu.sh [FILE [arguments of benchmarks.gpu]]
#
# PYTHON is the interpreter, MINUTES (6, with MNIST 4) those after which no figure is begun. DEVICE=cpu
# shows that the script is sound: give it a small --case, TRITON_INTERPRET=1 in the environment, and
# SHARES="0.0005 0.001" of the headline (all of it, a half and a quarter on a GPU).
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
device=${DEVICE:-cuda}
file=${1:-benchmarks/results/gpu.json}
minutes=${MINUTES:-$([ -n "${MNIST:-}" ] && echo 4 || echo 6)}
training=${TRAINING:-60}
shift || true
if [ "$device" = cuda ]; then
    timeout 60 "$python" -m pip install --quiet --no-deps flash-sinkhorn pykeops keopscore pybind11 ||
        echo "flash-sinkhorn and KeOps could not be installed: figures without them"
    timeout 150 "$python" -m pytest -q tests/test_triton.py tests/test_cuda.py -k "not trains" ||
        echo "tests failed, or took too long: see above"
fi
timeout "$(awk "BEGIN { print int(60 * $minutes) + 20 }")" \
    "$python" -m benchmarks.gpu --device "$device" --minutes "$minutes" --json "$file" "$@"
left=$((600 - SECONDS))
if [ -n "${MNIST:-}" ] && [ "$left" -ge $((training + 60)) ]; then # the classifier that measures takes a while
    timeout "$left" "$python" -m benchmarks.training --mnist "$MNIST" --atoms 60000 --recipe ours --seeds 0 \
        --seconds "$training" --device "$device" --json "${file%.json}_training.json" ||
        echo "no generator was trained, or it took too long: see above"
elif [ -n "${MNIST:-}" ]; then
    echo "no time is left for a generator: python -m benchmarks.training --mnist $MNIST --device $device"
fi
left=$((600 - SECONDS))
if [ "$left" -ge 60 ]; then
    # shellcheck disable=SC2086  # of SHARES, each is an argument
    timeout "$left" "$python" -m benchmarks.scaling --headline ${SHARES:-} --device "$device" \
        --json "${file%.json}_headline.json" || echo "the headline failed, or took too long: see above"
else
    echo "no time is left for the headline: python -m benchmarks.scaling --headline --device $device"
fi
