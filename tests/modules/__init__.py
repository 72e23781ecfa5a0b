"""`ei2_modules` alone: the mathematics, without ComfyUI."""
