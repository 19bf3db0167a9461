"""Generators from elsewhere, as what the rest of the toolkit looks at and scores."""

from disentangle.adapters.autoencoder import adapt_autoencoder
from disentangle.adapters.components import principal_components
from disentangle.adapters.eigengan_port import load_eigengan_port
from disentangle.adapters.generator import AdaptedAutoencoder, AdaptedGenerator, adapt
from disentangle.adapters.orojar import load_orojar_gan
from disentangle.adapters.sampling import sample_images
from disentangle.adapters.stylegan import adapt_stylegan, style_axes
from disentangle.adapters.user_file import load_generator_from

__all__ = [
    "AdaptedAutoencoder",
    "AdaptedGenerator",
    "adapt",
    "adapt_autoencoder",
    "adapt_stylegan",
    "load_eigengan_port",
    "load_generator_from",
    "load_orojar_gan",
    "principal_components",
    "sample_images",
    "style_axes",
]
