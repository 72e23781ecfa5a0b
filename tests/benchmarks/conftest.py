"""Some benchmarks run in the real host, in this process; the rest does without."""

from .. import loaded_host

if not loaded_host.load():
    collect_ignore = ["test_compare.py", "test_control.py", "test_gpu.py", "test_quality_run.py"]
