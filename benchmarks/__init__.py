"""Measures the archive against the tools that people would copy with instead; see docs/benchmarks.md."""
