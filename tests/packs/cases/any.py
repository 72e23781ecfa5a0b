"""For every pack, whatever it is for."""

import torch

from ..edit import whole_way


def test_loading(before):
    """Loaded beside ours: tuning, inversion and edit give the same bits as without it"""
    after = whole_way()
    assert [name for name, values in before.items() if not torch.equal(values, after[name])] == []
