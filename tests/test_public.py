"""What everybody meets first: importing the package and asking for help are quick, and load no torch."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

IMPORT = "import stackgan_dist"
SHORT = "import sys; sys.argv = ['stackgan', 'generate', '--help']; from stackgan_dist.__main__ import main; main()"
HELP = "import sys; sys.argv = ['stackgan', '--help']; from stackgan_dist.__main__ import main; main()"


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(("code", "at_most_s"), [(IMPORT, 0.3), (HELP, 1.0), (SHORT, 1.0)])
def test_it_is_quick_and_loads_no_torch(code: str, at_most_s: float) -> None:
    """In a fresh interpreter; CPU seconds, so that a busy machine does not count."""
    ask = "import sys; print('loaded:', *{'torch', 'numpy', 'stackgan_dist'} & set(sys.modules))"
    before = _cpu_s()
    done = subprocess.run([sys.executable, "-c", f"{code}\n{ask}"], capture_output=True, text=True, check=True)
    assert _cpu_s() - before < at_most_s
    assert done.stdout.splitlines()[-1] == "loaded: stackgan_dist"
