"""Attention control (Prompt-to-Prompt, Hertz et al. 2022) for clips: an edit's attention follows its source's."""
