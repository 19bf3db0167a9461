"""The techniques that are functions of tensors: NOG, OLR and OL.

Source: Song, Sebe and Wang, ECCV 2022, https://arxiv.org/abs/2207.02119, and TPAMI 2022,
https://arxiv.org/abs/2212.05599.
"""

from typing import Literal, get_args

# In the order in which they act: the optimal learning rate is that of the gradient in use.
OptimizerTechnique = Literal["nog", "olr"]
LossTechnique = Literal["ol"]
WeightTechnique = Literal["ow", "sn"]
Technique = Literal[OptimizerTechnique, LossTechnique, WeightTechnique]
OPTIMIZER_TECHNIQUES: tuple[str, ...] = get_args(OptimizerTechnique)
LOSS_TECHNIQUES: tuple[str, ...] = get_args(LossTechnique)
WEIGHT_TECHNIQUES: tuple[str, ...] = get_args(WeightTechnique)
