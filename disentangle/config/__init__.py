"""Options of every task, typed and documented once.

The sections `model`, `discriminator` and `data` are the constructor arguments of the class that
their `name` chooses: each option and its default are defined in that class, and nowhere else.
"""

from disentangle.config.choices import DATA_SETS, TASKS, Task
from disentangle.config.classification import ClassificationObjective
from disentangle.config.gan import GANObjective
from disentangle.config.optimizer import OptimizerConfig
from disentangle.config.options import find_changes, find_differing, flatten
from disentangle.config.run import FROM_MODEL, FROM_RUN, RunConfig, fill_defaults
from disentangle.config.training import TrainingConfig
from disentangle.config.vae import VAEObjective

__all__ = [
    "DATA_SETS",
    "FROM_MODEL",
    "FROM_RUN",
    "TASKS",
    "ClassificationObjective",
    "GANObjective",
    "OptimizerConfig",
    "RunConfig",
    "Task",
    "TrainingConfig",
    "VAEObjective",
    "fill_defaults",
    "find_changes",
    "find_differing",
    "flatten",
]
