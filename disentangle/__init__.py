"""Train, score and look into disentangled generative models, with orthogonal SVD layers."""

__version__ = "0.1.0"
