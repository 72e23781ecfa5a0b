"""Fastest first: static, modules, benchmarks, nodes, tools, host. `python dev.py test` runs them."""
