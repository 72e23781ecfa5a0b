"""ComfyUI as the tools, tests and benchmarks use it: started, talked to, looked at, or loaded into this process."""
