"""Matrix functions: pure, batched over leading dimensions, on the device of their argument."""

from disentangle.linalg.polar import polar_factor
from disentangle.linalg.spectrum import condition_number, effective_rank

__all__ = ["condition_number", "effective_rank", "polar_factor"]
