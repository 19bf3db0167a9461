"""Networks to train: VAEs, generators and their discriminators, classifiers, with SVD layers."""

# Python started in the root of a checkout could import this folder under a second name.
if __name__ != "disentangle.models":
    raise ImportError(f"import disentangle.models, not {__name__}: it would be a second copy")

from disentangle.models.eigengan import EigenGAN, EigenGANDiscriminator
from disentangle.models.latent_vae import LatentVAE, LatentVAEOutput
from disentangle.models.loading import load_model
from disentangle.models.protocol import Axis, Encoder, Generator
from disentangle.models.resnet import ResNet
from disentangle.models.rotated_generator import RotatedGenerator
from disentangle.models.sefa import rotate_latents, sefa_axes, unrotate_latents
from disentangle.models.simple_gan import SimpleGAN, SimpleGANDiscriminator
from disentangle.models.subspace_vae import SubspaceVAE, VAEOutput
from disentangle.models.torchvision_weights import load_torchvision_weights
from disentangle.models.variation_recogniser import VariationRecogniser

__all__ = [
    "Axis",
    "EigenGAN",
    "EigenGANDiscriminator",
    "Encoder",
    "Generator",
    "LatentVAE",
    "LatentVAEOutput",
    "ResNet",
    "RotatedGenerator",
    "SimpleGAN",
    "SimpleGANDiscriminator",
    "SubspaceVAE",
    "VAEOutput",
    "VariationRecogniser",
    "load_model",
    "load_torchvision_weights",
    "rotate_latents",
    "sefa_axes",
    "unrotate_latents",
]
