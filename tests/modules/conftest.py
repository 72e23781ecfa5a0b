"""The method is tested without ComfyUI: `ei2_modules` is a package of its own here."""

import torch

torch.set_num_threads(1)  # these tensors are tiny: more threads only wait for each other
