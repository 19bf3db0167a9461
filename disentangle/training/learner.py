"""A network, its optimizer and the techniques on its Pre-SVD parameters, under Accelerate."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import ModelMixin
from torch import Tensor, nn

from disentangle.config import OptimizerConfig, RunConfig
from disentangle.distributed.dtensor import gather
from disentangle.distributed.launch import divides_networks
from disentangle.models.layers.joint_batch_norm import join_batch_norms
from disentangle.orthogonality import (
    OPTIMIZER_TECHNIQUES,
    attach,
    orthogonal_loss,
    resolve_parameters,
)
from disentangle.orthogonality.conditioning import ConditioningProbe
from disentangle.training.batches import Batch
from disentangle.training.nonfinite import StepGuard, carry_into_gradient

Terms = dict[str, Tensor]


def build_optimizer(config: OptimizerConfig, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the parameters that are trained, at the rate before its schedule."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    # Fused: one kernel per step, and no host synchronisation with a tensor as learning rate.
    options: dict[str, Any] = {
        "lr": config.lr,
        "weight_decay": config.weight_decay,
        "fused": True,
    }
    if config.kind == "sgd":
        optimizer = torch.optim.SGD(parameters, momentum=config.momentum, **options)
        for parameter in parameters if config.momentum else ():
            # A first step that is not made would leave them as whatever was in memory.
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    adam = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return adam(parameters, betas=config.betas, **options)


class Learner:
    """Makes optimizer steps on one network.

    Args:
        run: Its optimizer and, with `treated`, its orthogonality techniques are used.
        accelerator: Accelerator to prepare the network and the optimizer with.
        network: On the training device.
        treated: Apply the techniques to the network's Pre-SVD parameters.

    Attributes:
        raw: The network itself. In mixed precision its `forward` autocasts as well.
        network: The network as Accelerate wraps it: what a loss that trains it must call.
        pre_svd: The Pre-SVD parameters by name; under OW and SN, the free ones behind the weights.
        conditioning: Measurements of them in the last step, 0-d tensors by name; empty if no
            measurement was due.
        guard: Keeps the optimizer from steps on gradients that are not finite.

    Raises:
        ValueError: If a Pre-SVD parameter is not found, or found twice.
    """

    def __init__(
        self,
        run: RunConfig,
        accelerator: Accelerator,
        network: ModelMixin,
        *,
        treated: bool = False,
    ) -> None:
        self.run, self.accelerator, self.raw = run, accelerator, network
        # FSDP2 divides rows, which must be whole in memory.
        if run.training.channels_last and not divides_networks():
            network.to(memory_format=torch.channels_last)
        if run.training.join_norms and accelerator.num_processes > 1:
            join_batch_norms(network)
        if run.training.compile:
            network.compile()
        optimizer = build_optimizer(run.optimizer, network)
        # FSDP2 puts divided parameters in the place of those of the network and of the optimizer.
        self.network, self.optimizer = accelerator.prepare(network, optimizer)
        self.pre_svd: dict[str, nn.Parameter] = {}
        self.orthogonal_loss_weight = 0.0
        self.conditioning: Terms = {}
        self.probe: ConditioningProbe | None = None
        if treated:
            names = run.pre_svd_parameters
            self.pre_svd = resolve_parameters(
                network, network.pre_svd_parameters() if names is None else names
            )
            techniques = set(run.orthogonality) & set(OPTIMIZER_TECHNIQUES)
            attach(optimizer, self.pre_svd, techniques, nog_scale=run.nog_scale)
            if every := run.training.conditioning_steps:
                self.probe = ConditioningProbe(
                    network,
                    self.pre_svd,
                    inputs=getattr(network, "meta_layers", None),
                    every=every,
                )
            if "ol" in run.orthogonality:
                self.orthogonal_loss_weight = run.orthogonal_loss_weight
        self.guard = StepGuard(network, optimizer)

    def descend(
        self, parts: Sequence[Batch], compute_loss: Callable[[Batch], tuple[Tensor, Terms]]
    ) -> Terms:
        """One step on the mean of a loss over the parts of a batch, unless that is not finite.

        Args:
            parts: As many as Accelerate was told to accumulate.
            compute_loss: The loss of a part, and terms to report.

        Returns:
            The mean of each term over the parts, detached.
        """
        step = parts[0].step
        self._set_rate(step)
        self.guard.keep_buffers()
        if self.probe is not None:
            self.probe.step = step
        totals: Terms = {}
        for part in parts:
            with self.accelerator.accumulate(self.network):
                loss, terms = compute_loss(part)
                if self.orthogonal_loss_weight:
                    weights = [gather(weight) for weight in self.pre_svd.values()]
                    terms["orthogonal"] = orthogonal_loss(weights)
                    loss = loss + self.orthogonal_loss_weight * terms["orthogonal"]
                self.accelerator.backward(carry_into_gradient(loss))
                if self.accelerator.sync_gradients:
                    self._inspect_gradients(step)
                self.optimizer.step()
                self.optimizer.zero_grad()
            for name, term in terms.items():
                totals[name] = totals.get(name, 0) + term.detach() / len(parts)
        return totals

    def _inspect_gradients(self, step: int) -> None:
        """Unscale, check and measure the gradients before the optimizer's step."""
        if self.accelerator.scaler is not None:
            # A fused optimizer would unscale only after NOG and OLR saw the gradient.
            self.accelerator.unscale_gradients(self.optimizer)
        self.guard.inspect(step, self.accelerator.scaler)
        if self.probe is not None:
            self.conditioning = self.probe.record()

    def _set_rate(self, step: int) -> None:
        """Sets the learning rate of a step: a function of the step, so there is nothing to save."""
        rate = self.run.optimizer.rate(step, self.run.training.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate


@contextmanager
def frozen(learners: Iterable[Learner]) -> Iterator[None]:
    """Lets gradients flow through networks, not into them, while another one descends.

    The whole step of the other must be in the block: FSDP2 knows the choice only once the
    parameters are divided again, after the backward pass.

    Args:
        learners: Learners of networks that train all their parameters.
    """
    networks = [lone.raw for lone in learners]
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)
