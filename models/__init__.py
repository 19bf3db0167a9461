"""What is trained: generators with SVD latent layers, and their adversaries."""

from disentangle.models.eigengan import EigenGAN, EigenGANDiscriminator
from disentangle.models.loading import load_model
from disentangle.models.protocol import Axis, Encoder, Generator
from disentangle.models.sefa import rotate_latents, sefa_axes, unrotate_latents
from disentangle.models.simple_gan import SimpleGAN, SimpleGANDiscriminator
from disentangle.models.subspace_vae import SubspaceVAE, VAEOutput
from disentangle.models.variation_recogniser import VariationRecogniser

__all__ = [
    "Axis",
    "EigenGAN",
    "EigenGANDiscriminator",
    "Encoder",
    "Generator",
    "SimpleGAN",
    "SimpleGANDiscriminator",
    "SubspaceVAE",
    "VAEOutput",
    "VariationRecogniser",
    "load_model",
    "rotate_latents",
    "sefa_axes",
    "unrotate_latents",
]
