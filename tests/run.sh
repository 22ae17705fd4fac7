#!/usr/bin/env bash
# All checks, as CI runs them: `bash tests/run.sh [PYTEST ARGUMENTS]`, e.g. `bash tests/run.sh -k checkpoint -x`.
# Without arguments two workers share the tests, file by file: much of their time is waiting.
# They run on the CPU also where there are GPUs, of which tests of several ranks would need several; what needs a GPU is
# in tests/cuda (docs/cuda.md).
set -uo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bash launch/env.sh dev || exit

failed=()
check() {
  echo "== $*"
  .venv/bin/"$@" || failed+=("$1 $2")
}
check ruff check
check ruff format --check
check mypy --no-error-summary
check codespell .
# The oldest torch that pyproject.toml promises, where an interpreter has it (CONTRIBUTING.md): networks and step.
if [ -n "${OLD_TORCH_PYTHON:-}" ]; then
  "$OLD_TORCH_PYTHON" -c 'import sys, torch; print(f"== torch {torch.__version__} of {sys.executable}: networks and step")'
  "$OLD_TORCH_PYTHON" -m pytest tests/models tests/train/test_step.py tests/train/test_losses.py || failed+=("old torch")
fi
# The tests come last, so that their summary is the end of the output; what failed before it is named above it.
[ ${#failed[@]} = 0 ] || printf '== FAILED: %s\n' "${failed[@]}"
[ $# -gt 0 ] || set -- --numprocesses 2 --dist loadscope --no-loadscope-reorder --durations 15
export CUDA_VISIBLE_DEVICES=
echo "== pytest $*"
.venv/bin/python -m pytest "$@" || failed+=(pytest)
[ ${#failed[@]} = 0 ]
