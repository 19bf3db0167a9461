import inspect

import pytest

from disentangle.evaluation.registry import METRICS, Metric


@pytest.mark.parametrize("name", METRICS)
def test_a_target_provides_what_a_metric_requires(name):
    metric = METRICS[name]
    parameters = inspect.signature(metric.function).parameters
    required = {key for key, p in parameters.items() if p.default is p.empty}
    assert required <= metric.inputs.arguments.keys()
    assert metric.inputs.arguments.keys() <= parameters.keys()
    assert set(metric.special) <= parameters.keys()
    assert metric.defaults.keys() == parameters.keys() - metric.not_options


def test_the_signature_of_a_new_metric_says_what_it_needs():
    def difference(codes, factors, test_codes, *, bins=3, seed=0):
        return codes + factors + test_codes

    metric = Metric(difference, "supervised")
    assert metric.inputs.needs == ("codes", "factors", "test split")
    assert list(metric.inputs.arguments) == ["codes", "factors", "test_codes"]
    assert metric.defaults == {"bins": 3}
    assert not metric.inputs.shared
    assert metric.call({"codes": 1, "factors": 2, "test_codes": 4}, {"bins": 5}, seed=6) == 7


def test_what_encodes_or_decodes_is_called_in_all_processes_together():
    assert Metric(lambda decode, sample: None, "generator").inputs.shared
    assert Metric(lambda represent, factor_sizes: None, "supervised").inputs.needs == (
        "codes",
        "factors",
        "rendering",
    )
    shared = {name for name, metric in METRICS.items() if metric.inputs.shared}
    encoding = {"factor_vae_score", "beta_vae_score"}
    decoding = {"activeness", "variation_predictability", "perceptual_path_length"}
    assert shared == encoding | decoding | {"accuracy"}
