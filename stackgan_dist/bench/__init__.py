"""What `python -m stackgan_dist.bench` runs: one module for each benchmark, with `Options` and `run(options)`.

Common to them: timing.py (callables in turns), machine.py (what it is, its peak, peak memory), report.py (tables and
JSON).
"""
