"""Names of the techniques, by what they act on.

Source: Song, Sebe and Wang, ECCV 2022, https://arxiv.org/abs/2207.02119, and TPAMI 2022,
https://arxiv.org/abs/2212.05599; NOU (`nou`) and the orthonormal kernel (`ow_kernel`) are not
published.
"""

from typing import Literal, get_args

# In the order in which they act: the optimal learning rate is that of the gradient in use.
OptimizerTechnique = Literal["nog", "olr", "nou"]
LossTechnique = Literal["ol"]
WeightTechnique = Literal["ow", "ow_kernel", "sn"]
Technique = Literal[OptimizerTechnique, LossTechnique, WeightTechnique]
OPTIMIZER_TECHNIQUES: tuple[str, ...] = get_args(OptimizerTechnique)
LOSS_TECHNIQUES: tuple[str, ...] = get_args(LossTechnique)
WEIGHT_TECHNIQUES: tuple[str, ...] = get_args(WeightTechnique)
# Each of these decides the direction of a step, so that there can be one of them only.
DIRECTION_TECHNIQUES = ("nog", "nou")
