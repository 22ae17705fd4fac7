#!/usr/bin/env bash
# bash tests/cuda/wheels.sh FOLDER [PYTHON_VERSION] : what check.py needs and a bare machine with torch, numpy and Python
# 3.12 may lack, as wheels of the pinned versions (launch/constraints.txt). To be run where there is a network.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
out=${1:?bash tests/cuda/wheels.sh FOLDER [PYTHON_VERSION]}
python=${PYTHON:-python3}
mapfile -t packages < <(PYTHONPATH=tests/cuda "$python" -c 'import check; print(*check.LACKING.values(), sep="\n")')
[ "${#packages[@]}" -gt 0 ]
"$python" -m pip download --quiet --no-deps --only-binary :all: --dest "$out" --constraint launch/constraints.txt \
  --python-version "${2:-3.12}" --implementation cp --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 \
  "${packages[@]}"
ls "$out"
