"""What the benchmarks share: models of random weights, a count of bytes, the report."""
