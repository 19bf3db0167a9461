"""Layers built on the singular value decomposition."""

from disentangle.models.layers.covariance_pooling import GlobalCovariancePooling
from disentangle.models.layers.decorrelated_batch_norm import DecorrelatedBatchNorm2d
from disentangle.models.layers.subspace import SubspaceLayer
from disentangle.models.layers.whitening import Whitening

__all__ = ["DecorrelatedBatchNorm2d", "GlobalCovariancePooling", "SubspaceLayer", "Whitening"]
