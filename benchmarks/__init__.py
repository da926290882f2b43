"""Measurements behind the design's choices; docs/benchmarks.md holds their results. Run each as `python -m benchmarks.NAME`."""
