"""Conditioning of a layer while it trains: of its weight, its gradient and its covariance.

Measures are functions of a tensor; `ConditioningProbe` takes them of any network, step by step.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from disentangle.distributed.dtensor import gather
from disentangle.linalg.checks import check_dense
from disentangle.linalg.primitives import without_autocast
from disentangle.linalg.spectrum import Spectrum, feature_spectrum, gram_spectrum
from disentangle.orthogonality import as_matrix
from disentangle.orthogonality.channel_axis import find_channel_axis, layer_kind

PREFIX = "conditioning"


class Conditioning(NamedTuple):
    """Distance of a symmetric matrix with eigenvalues `λ` from a multiple of the identity.

    Each is 0-d, float64, on the device of what was measured; not a number where that is not finite.

    Attributes:
        condition: `λmax / λmin`, at least 1; infinite for a singular matrix. Of a Gram matrix it is
            the *square* of the ratio of the singular values.
        nonnull_condition: `λmax / λmin` over the eigenvalues that are not zero.
        effective_rank: The exponential of the entropy of `λ / Σλ`, from 1 to their number.
        orthogonality_error: The root of the mean of `(λ − 1)²`.
        norm: `√Σλ`. Of a Gram matrix it is the Frobenius norm of the weight or gradient; of a
            covariance the standard deviation of the features, over all channels together.
    """

    condition: Tensor
    nonnull_condition: Tensor
    effective_rank: Tensor
    orthogonality_error: Tensor
    norm: Tensor


class CovarianceConditioning(NamedTuple):
    """`Conditioning` of a covariance, with a condition number that is blind to its scale.

    Attributes:
        condition: As in `Conditioning`, with `eps` added to each `λ`.
        nonnull_condition: As in `Conditioning`.
        effective_rank: As in `Conditioning`.
        orthogonality_error: As in `Conditioning`.
        norm: As in `Conditioning`.
        normalised_condition: `condition` of the covariance divided by its mean `λ`, so that `eps`
            is relative to that. Of dependent channels `condition` is near `λmax / eps`, which grows
            with the scale of the features; this does not.
    """

    condition: Tensor
    nonnull_condition: Tensor
    effective_rank: Tensor
    orthogonality_error: Tensor
    norm: Tensor
    normalised_condition: Tensor


MEASURES = CovarianceConditioning._fields
MEASURES_OF = {
    "weight": Conditioning._fields,
    "gradient": Conditioning._fields,
    "covariance": CovarianceConditioning._fields,
}
QUANTITIES = tuple(MEASURES_OF)


@torch.no_grad()
def weight_conditioning(weight: Tensor) -> Conditioning:
    """The conditioning of the Gram matrix of a weight `U`, `U Uᵀ` or `Uᵀ U`, the smaller one.

    The orthogonality error is `‖U Uᵀ − I‖_F / √q` for `q` rows (or columns, if these are fewer): 0
    for orthonormal ones, 1 for zero.

    A singular value counts as zero where it does in `polar_factor`. On CUDA it synchronises with
    the host, as eigenvalues do.

    Args:
        weight: As `as_matrix` takes it, floating point.

    Raises:
        ValueError: If `weight` has fewer than 2 dimensions, is empty or is not floating point.

    Examples:
        >>> measures = weight_conditioning(torch.diag(torch.tensor([2.0, 1.0])))
        >>> measures.condition.item(), round(measures.orthogonality_error.item(), 4)
        (4.0, 2.1213)
    """
    spectrum = gram_spectrum(as_matrix(weight))
    return _measure(spectrum, error=(spectrum.eigenvalues - 1).square().mean().sqrt())


@torch.no_grad()
def gradient_conditioning(gradient: Tensor) -> Conditioning:
    """The conditioning of the Gram matrix of a gradient, blind to the scale of the gradient.

    As `weight_conditioning`, but the orthogonality error is that of the gradient scaled to a mean
    eigenvalue of 1: 0 for a multiple of an orthogonal matrix, `√(q − 1)` for rank 1. The size of a
    gradient says nothing about its directions.

    Args:
        gradient: As `as_matrix` takes it, floating point.

    Returns:
        Where the gradient is zero: an infinite condition number, an effective rank and a norm of 0,
        the others not a number.

    Raises:
        ValueError: If `gradient` has fewer than 2 dimensions, is empty or is not floating point.

    Examples:
        >>> gradient_conditioning(0.01 * torch.eye(3)).orthogonality_error.item()
        0.0
    """
    spectrum = gram_spectrum(as_matrix(gradient))
    return _measure(spectrum, error=_spread(spectrum))


@torch.no_grad()
def covariance_conditioning(
    features: Tensor, *, eps: float = 0.0, channel_axis: int = 1
) -> CovarianceConditioning:
    """The conditioning of the covariance of features between their channels.

    `Σ = (1/M) Σ (x − x̄)(x − x̄)ᵀ` over the `M` samples and positions. `condition` is that of
    `Σ + eps I`, what an SVD meta-layer decomposes: where channels are dependent, it is near
    `λmax / eps` whatever the others do. `normalised_condition` is that of `Σ / λ̄ + eps I` with the
    mean eigenvalue `λ̄ = tr Σ / C`. The rest tell of `Σ` itself; the orthogonality error is that of
    `Σ / λ̄`, 0 for white features.

    With more channels than samples the smaller Gram matrix of the samples gives the same.

    Args:
        features: At least 2 dimensions, floating point; all axes but that of the channels count
            samples and positions.
        eps: What the meta-layer adds to the diagonal.
        channel_axis: The axis of the channels: 1 for `(N, C)` or images `(N, C, H, W)`, -1 for
            sequences `(N, T, C)`.

    Raises:
        ValueError: If `features` has fewer than 2 dimensions, no axis `channel_axis`, is empty or
            is not floating point, or `eps` is negative.

    Examples:
        >>> features = torch.tensor([[2.0, 1.0], [-2.0, 1.0], [2.0, -1.0], [-2.0, -1.0]])
        >>> covariance_conditioning(features).condition.item()
        4.0
        >>> covariance_conditioning(features, eps=2.0).condition.item()
        2.0
    """
    _check_eps(eps)
    check_dense("features", features)
    shape = tuple(features.shape)
    if features.ndim < 2:
        raise ValueError(f"features must be (N, C) or have more dimensions, got shape {shape}")
    if not -features.ndim <= channel_axis < features.ndim:
        raise ValueError(f"features have no channel axis {channel_axis}, got shape {shape}")
    samples = features.movedim(channel_axis, -1).flatten(end_dim=-2)  # (…, C, …) -> (M, C)
    spectrum = feature_spectrum(samples)
    measures = _measure(spectrum, error=_spread(spectrum))
    return CovarianceConditioning(
        *measures._replace(condition=spectrum.condition_number(eps=eps)),
        normalised_condition=spectrum.scaled_to_mean().condition_number(eps=eps),
    )


class ConditioningProbe:
    """Measures the layers of a network while it trains.

    Of each parameter it measures the weight and the gradient, as `weight_conditioning` and
    `gradient_conditioning` do, whenever `record` is called: after backward and before the
    optimizer's step, where the gradient is what came from the loss, before NOG. Of a parametrized
    weight (OW, SN) that is the effective weight, and the gradient of the free parameter behind it.

    Of each module it measures the covariance of what goes in or comes out, at the last forward pass
    before `record`: of the first positional argument, or of the output. The first of a tuple is
    taken as the output of PyTorch's attention and recurrent layers.

    The axis of the channels follows from the kind of layer: the last for linear, embedding,
    attention, recurrent, layer and RMS norm layers; the second for convolutions, pooling, batch,
    instance and group norms (the first for a single sample without a batch axis). A module of your
    own can state it in an attribute `channel_axis`. For any other layer, such as an activation, a
    container or a subclass with a `forward` of its own, more than 2 dimensions are refused unless
    `channel_axes` names the axis.

    On several processes (DistributedDataParallel, FSDP2) each calls `record`, and finds the same of
    weights and gradients. A covariance is that of the process's own share of the batch.

    Measuring changes nothing: no random draws, no buffers, no gradients. What it finds stays on the
    device, but each eigendecomposition synchronises with a GPU: with `every` > 1 only steps
    `every`, `2 every`, … are measured, and the others cost nothing.

    Pass the network itself, not a wrapper around it. As a context manager it removes itself at the
    end.

    Args:
        network: The network.
        parameters: By name, as from `resolve_parameters`.
        inputs: Modules whose input to measure, by their name in the network, each with the `eps`
            that it adds to the diagonal of the covariance.
        outputs: Modules whose output to measure, with the `eps` of whatever takes it in.
        channel_axes: The axis of the channels in what is measured of a module, by its name; in
            place of the one that its kind implies.
        every: Steps between two measurements.
        training_only: Whether modules in evaluation mode are left out.

    Attributes:
        step: The number of the step in progress; counts up from 1, set it when resuming.

    Raises:
        ValueError: If there is nothing to measure, `every` is not positive, an `eps` is negative,
            the network has no such parameter or module, or `channel_axes` names a module that is
            not measured. At a forward pass: if what a module takes or returns is no tensor, or the
            axis of its channels is ambiguous.

    Examples:
        >>> from disentangle.orthogonality import resolve_parameters
        >>> network = nn.Sequential(nn.Linear(4, 2), nn.Tanh())
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        >>> parameters = resolve_parameters(network, ["0.weight"])
        >>> with ConditioningProbe(network, parameters, outputs={"0": 0.0}) as probe:
        ...     for _ in range(3):
        ...         network(torch.randn(8, 4)).square().mean().backward()
        ...         measures = probe.record()
        ...         optimizer.step()
        >>> [name for name in measures if name.endswith("/condition")]
        ['conditioning/0.weight/weight/condition',
         'conditioning/0.weight/gradient/condition',
         'conditioning/0/covariance/condition']
        >>> bool(measures["conditioning/0/covariance/condition"] >= 1)
        True
    """

    def __init__(
        self,
        network: nn.Module,
        parameters: Mapping[str, nn.Parameter] | None = None,
        *,
        inputs: Mapping[str, float] | None = None,
        outputs: Mapping[str, float] | None = None,
        channel_axes: Mapping[str, int] | None = None,
        every: int = 1,
        training_only: bool = True,
    ) -> None:
        parameters, inputs, outputs = parameters or {}, inputs or {}, outputs or {}
        if every < 1:
            raise ValueError(f"every must be positive, got {every}")
        if not (parameters or inputs or outputs):
            raise ValueError("expected at least one parameter or module to measure, got none")
        if both := inputs.keys() & outputs.keys():
            raise ValueError(f"expected the input or the output of {both.pop()!r}, got both")
        self._channel_axes = dict(channel_axes or {})
        for name, axis in self._channel_axes.items():
            if type(axis) is not int:
                raise ValueError(f"channel_axes[{name!r}] must be an integer, got {axis!r}")
        if stray := self._channel_axes.keys() - inputs.keys() - outputs.keys():
            raise ValueError(
                f"channel_axes must name modules among inputs or outputs, got {stray.pop()!r}"
            )
        self.step, self.every, self.training_only = 1, every, training_only
        self._weights = {
            name: _find_weight(network, name, parameter) for name, parameter in parameters.items()
        }
        modules = {name: _find_module(network, name) for name in (*inputs, *outputs)}
        self._covariances: dict[str, CovarianceConditioning] = {}
        for eps in (*inputs.values(), *outputs.values()):
            _check_eps(eps)
        takers = [(name, partial(self._take_input, name, eps)) for name, eps in inputs.items()]
        givers = [(name, partial(self._take_output, name, eps)) for name, eps in outputs.items()]
        self._handles = [
            *(modules[name].register_forward_pre_hook(hook) for name, hook in takers),
            *(modules[name].register_forward_hook(hook) for name, hook in givers),
        ]

    @property
    def due(self) -> bool:
        """True if the step in progress is measured."""
        return self.step % self.every == 0

    @torch.no_grad()
    def record(self) -> dict[str, Tensor]:
        """Measures the step in progress if it is due, and goes on to the next.

        Returns:
            0-d tensors by `measure_name`; none for a gradient that is not there, or a module that
            was not called. Empty when no measurement is due.
        """
        due, covariances = self.due, self._covariances
        self.step, self._covariances = self.step + 1, {}
        if not due:
            return {}
        found: dict[tuple[str, str], Conditioning | CovarianceConditioning] = {}
        for name, (module, attribute) in self._weights.items():
            found[name, "weight"] = weight_conditioning(
                gather(_effective_weight(module, attribute))
            )
            gradient = _free_parameter(module, attribute).grad
            if gradient is not None:
                found[name, "gradient"] = gradient_conditioning(gather(gradient))
        found |= {(name, "covariance"): measured for name, measured in covariances.items()}
        return {
            measure_name(layer, quantity, measure): value
            for (layer, quantity), measured in found.items()
            for measure, value in measured._asdict().items()
        }

    def remove(self) -> None:
        """Undoes the hooks."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> "ConditioningProbe":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _take_input(self, name: str, eps: float, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._take(name, eps, module, args[0] if args else None, "input")

    def _take_output(
        self, name: str, eps: float, module: nn.Module, args: tuple[Any, ...], output: Any
    ) -> None:
        if type(output) is tuple and layer_kind(module) is not None:
            output = output[0]  # of attention, beside its weights; of an LSTM, beside its state
        self._take(name, eps, module, output, "output")

    # An eigendecomposition is no part of a graph that is compiled.
    @torch.compiler.disable
    def _take(self, name: str, eps: float, module: nn.Module, features: Any, side: str) -> None:
        if not self.due or (self.training_only and not module.training):
            return
        what = f"the {side} of {name!r} ({type(module).__name__})"
        if not isinstance(features, Tensor):
            got = type(features).__name__
            raise ValueError(f"{what} must be a tensor to measure its covariance, got {got}")
        axis = self._channel_axes.get(name, find_channel_axis(module, features))
        if axis is None:
            shape = tuple(features.shape)
            raise ValueError(
                f"the channel axis of {what} is ambiguous for shape {shape}: pass "
                f"channel_axes={{{name!r}: 1}} if channels come second, -1 if they come last"
            )
        # Now and not in `record`: what follows may change the features in place.
        features = features.detach()
        self._covariances[name] = covariance_conditioning(features, eps=eps, channel_axis=axis)


def measure_name(layer: str, quantity: str, measure: str) -> str:
    """Return the name of a measure in logs.

    Examples:
        >>> measure_name("conv1.weight", "gradient", "effective_rank")
        'conditioning/conv1.weight/gradient/effective_rank'
    """
    return f"{PREFIX}/{layer}/{quantity}/{measure}"


def split_measure_name(name: str) -> tuple[str, str, str] | None:
    """Layer, quantity and measure of the name of a measure; `None` for another name.

    Examples:
        >>> split_measure_name("conditioning/conv1.weight/gradient/effective_rank")
        ('conv1.weight', 'gradient', 'effective_rank')
        >>> split_measure_name("loss/generator")
    """
    prefix, _, rest = name.partition("/")
    layer, *kind = rest.rsplit("/", 2)
    if prefix != PREFIX or len(kind) != 2:
        return None
    return layer, kind[0], kind[1]


def _measure(spectrum: Spectrum, *, error: Tensor) -> Conditioning:
    return Conditioning(
        condition=spectrum.condition_number(),
        nonnull_condition=spectrum.nonnull_condition_number(),
        effective_rank=spectrum.effective_rank(),
        orthogonality_error=error,
        norm=spectrum.eigenvalues.clamp(min=0).sum().sqrt(),
    )


def _spread(spectrum: Spectrum) -> Tensor:
    """The root of the mean of `(λ − 1)²`, for eigenvalues scaled to a mean of 1."""
    return (spectrum.scaled_to_mean().eigenvalues - 1).square().mean().sqrt()


def _check_eps(eps: float) -> None:
    if not eps >= 0:
        raise ValueError(f"eps must not be negative, got {eps}")


def _find_module(network: nn.Module, name: str) -> nn.Module:
    modules = dict(network.named_modules())
    if name not in modules:
        close = get_close_matches(name, modules) or list(modules)[1:]
        raise ValueError(f"no module is named {name!r}; there is {', '.join(close) or 'none'}")
    return modules[name]


def _find_weight(network: nn.Module, name: str, parameter: nn.Parameter) -> tuple[nn.Module, str]:
    """The module that a parameter, or the weight that it stands for, is an attribute of."""
    # A parametrized module comes before the list of its parametrizations, its submodule.
    for module in network.modules():
        for attribute, chain in _parametrizations(module).items():
            if getattr(chain, "original", None) is parameter:
                return module, attribute
        for attribute, own in module.named_parameters(recurse=False):
            if own is parameter:
                return module, attribute
    raise ValueError(f"the network does not have the parameter that is named {name!r}")


def _parametrizations(module: nn.Module) -> dict[str, nn.Module]:
    """The list of parametrizations of each parametrized weight."""
    if not parametrize.is_parametrized(module):
        return {}
    return dict(cast(nn.ModuleDict, module.parametrizations))


def _free_parameter(module: nn.Module, attribute: str) -> Tensor:
    chain = _parametrizations(module).get(attribute)
    return cast(Tensor, getattr(module, attribute) if chain is None else chain.original)


def _effective_weight(module: nn.Module, attribute: str) -> Tensor:
    """The weight as a forward pass would see it."""
    chain = _parametrizations(module).get(attribute)
    if chain is None:
        return getattr(module, attribute)
    # In training mode a look may move the buffers of a parametrization: torch's spectral norm
    # makes a power iteration.
    modes = [(part, part.training) for part in chain.modules()]
    try:
        for part, _ in modes:
            part.training = False
        with without_autocast(_free_parameter(module, attribute)):
            return getattr(module, attribute)
    finally:
        for part, training in modes:
            part.training = training
