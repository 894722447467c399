"""Every figure that the documentation quotes, as a command: `python -m benchmarks.NAME [--full]`.

Each prints its table, and one JSON object as its last line. Comparisons alternate within one run,
since machines drift: trust medians and ratios.
"""
