import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from disentangle.training.ema import RunningAverage


def test_as_the_average_of_torch():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    ours = RunningAverage(network, decay=0.9)
    reference = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for step in range(1, 6):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        network(torch.randn(4, 1, 5, 5))  # moves the buffers
        ours.update(network, first=step == 1)
        reference.update_parameters(network)
    expected = reference.module.state_dict()
    for name, tensor in ours.module.state_dict().items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, expected[name], rtol=1e-5), name
    assert ours.module[1].num_batches_tracked == network[1].num_batches_tracked


def test_it_is_not_trained_and_in_evaluation_mode():
    average = RunningAverage(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), decay=0.5)
    assert not any(module.training for module in average.module.modules())
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_an_update_waits_for_no_value(count_scalars):
    network = nn.Linear(2, 2)
    average = RunningAverage(network, decay=0.5)
    with count_scalars() as count:
        average.update(network, first=True)
        average.update(network, first=False)
    assert count.calls == 0


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_bad_decays(decay):
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\), got"):
        RunningAverage(nn.Linear(1, 1), decay=decay)
