"""The adapter: the only code that touches ComfyUI's internals. Turns host objects into plain ones and back."""
