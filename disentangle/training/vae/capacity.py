"""The capacity of the annealed VAE: how far the posterior is asked to be from the prior."""


def annealed_capacity(step: int, maximum: float, steps: int) -> float:
    """The divergence, in nats, that the code is asked for: grows linearly, then stays.

    Source: Burgess et al., "Understanding disentangling in β-VAE", 2018,
    https://arxiv.org/abs/1804.03599, eq. 8.

    Args:
        step: The optimizer step, from 1; the first one asks for none.
        maximum: `C` in the end, in nats.
        steps: After how many steps.

    Examples:
        >>> [annealed_capacity(step, maximum=25.0, steps=100) for step in (1, 51, 101, 1000)]
        [0.0, 12.5, 25.0, 25.0]
    """
    return maximum * min(1.0, (step - 1) / steps)
