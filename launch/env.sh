#!/usr/bin/env bash
# Make this checkout's environment, .venv: `bash launch/env.sh [demo|dev]`. A second call returns at once.
#
#   demo  what training and scoring need (default)
#   dev   the above, the other data sets' needs, and the tools of the tests
#
# PYTHON=... chooses the interpreter (3.11 or newer).
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

level=${1:-demo}
case $level in
  demo) extras=score compile=--no-compile ;;
  dev) extras=dev compile=--compile ;;
  *) echo "error: unknown level '$level'; call launch/env.sh demo or launch/env.sh dev" >&2; exit 2 ;;
esac

# The path is part of the stamp because a venv cannot be moved.
inputs=$( (pwd -P; cat pyproject.toml launch/constraints.txt) | sha256sum | cut -c1-16)
stamp=.venv/.installed
is_ready() {
  [ -x .venv/bin/python ] && [ -f $stamp ] && grep -qxE "($level|dev) $inputs" $stamp
}
if is_ready; then exit 0; fi

fail() { echo "error: $*" >&2; exit 1; }

# Jobs that start together must not install into each other.
exec 9<launch
flock 9 2>/dev/null || echo "environment: this file system has no locks (flock); start one job at a time until it is made" >&2
if is_ready; then exit 0; fi

python=${PYTHON:-}
for candidate in ${python:-python3 python3.13 python3.12 python3.11}; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; break; fi
  python=
done
[ -n "$python" ] || fail "no Python 3.11 or newer among: ${PYTHON:-python3 python3.13 python3.12 python3.11}." \
  "On Debian 12: apt-get install python3 python3-venv. Or name one: PYTHON=/path/to/python3.12 $0"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "$("$python" --version) cannot make virtual environments; on Debian: apt-get install python3-venv"

pin() { grep -E "^$1==" launch/constraints.txt; }
begin=$SECONDS
echo "environment: installing $(pin torch) and the rest into .venv, once; takes a few minutes (log: .venv/pip.log)"
rm -f $stamp
[ -x .venv/bin/pip ] || "$python" -m venv --clear .venv
# A user's settings for other environments (PIP_USER) must not send packages elsewhere.
export PIP_USER=0
pip_install() {
  .venv/bin/python -m pip --disable-pip-version-check --no-input install "$compile" "$@" >>.venv/pip.log 2>&1 || {
    tail -n 25 .venv/pip.log >&2
    fail "pip could not install $* (the above are the last lines of .venv/pip.log); put it right, then start again"
  }
}
: >.venv/pip.log
# torch first and alone: a range, or another package's wish, may pull another build of several gigabytes.
pip_install "$(pin torch)" "$(pin numpy)"
pip_install --constraint launch/constraints.txt --editable ".[$extras]"
# Compiling all of torch takes longer than the rest of the demo's installation: only what is imported is compiled, here
# and now, since a shell may have forbidden it for what comes.
if [ $compile = --no-compile ]; then
  PYTHONDONTWRITEBYTECODE='' .venv/bin/python -c 'import stackgan_dist.train.__main__, stackgan_dist.scores.__main__, stackgan_dist.generate'
fi
echo "$level $inputs" >$stamp
echo "environment: ready after $((SECONDS - begin)) s"
