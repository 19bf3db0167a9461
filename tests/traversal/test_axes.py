import pytest
import torch

from disentangle.models import Axis
from disentangle.traversal import pick_axes, rank_axes, rank_live_axes

AXES = tuple(
    Axis(f"dimension {i % 2}", f"block {i // 2}", direction)
    for i, direction in enumerate(torch.eye(4))
)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("0", [0]),
        ("3, 1", [3, 1]),
        ("block 1", [2, 3]),
        ("block 1/dimension 0,0", [2, 0]),
        ("block 1,block 0", [2, 3, 0, 1]),
    ],
)
def test_axes_are_picked_in_the_order_of_the_text(chosen, expected):
    assert pick_axes(AXES, chosen) == tuple(AXES[i] for i in expected)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("4", "no axis '4': expected an index from 0 to 3"),
        ("-1", "no axis '-1'"),
        ("", "no axis ''"),
        ("0,", "no axis ''"),
        ("blok 1", "no axis 'blok 1'.*did you mean block 1?"),
        ("dimension 0", "GROUP/NAME, such as 'block 0/dimension 0'"),
        ("0,block 0", "axis 'block 0/dimension 0' is named twice in '0,block 0'"),
    ],
)
def test_what_names_no_axis_is_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        pick_axes(AXES, chosen)


def test_axes_are_ranked_within_their_group():
    strengths = torch.tensor([0.05, 0.1, 0.45, 0.0])
    ranked = rank_axes(lambda z: (z * strengths)[:, :, None, None], AXES, torch.zeros(1, 4))
    # values −2, 0 and 2: variance 4 s², mean over four pixels s²
    assert [axis.name for axis in ranked] == [
        *("dimension 1 (0.01)", "dimension 0 (0.0025)"),
        *("dimension 0 (0.2)", "dimension 1 (0)"),
    ]
    for axis, index in zip(ranked, (1, 0, 2, 3), strict=True):
        assert axis.direction is AXES[index].direction


@pytest.mark.parametrize(
    ("strengths", "dead"),
    [([0.5, 0.0051, 0.0049, 0.0], [2, 3]), ([0.1] * 4, []), ([0.0] * 4, [])],
)
def test_dead_axes_have_less_than_1e_4_of_the_largest_variance(strengths, dead):
    scales = torch.tensor(strengths)
    live, found = rank_live_axes(lambda z: (z * scales)[:, :, None, None], AXES, torch.zeros(1, 4))
    assert found == tuple(AXES[i] for i in dead)
    kept = {id(axis.direction) for axis in AXES if axis not in found}
    assert len(live) == len(kept)
    assert {id(axis.direction) for axis in live} == kept
