"""The shapes that the convolutional models accept."""

from torch import Tensor


def count_halvings(image_size: int, smallest: int) -> int:
    """Count the halvings that bring an image to `smallest` pixels.

    Args:
        image_size: Height and width in pixels.
        smallest: The resolution to arrive at, a power of two.

    Raises:
        ValueError: If `image_size` is not a power of two from 32.

    Examples:
        >>> count_halvings(256, smallest=4)
        6
    """
    if image_size < 32 or image_size & (image_size - 1):
        raise ValueError(f"image_size must be a power of two from 32, got {image_size}")
    return (image_size // smallest).bit_length() - 1


def check_latents(z: Tensor, latent_dim: int) -> None:
    """Raises `ValueError` unless `z` has the shape `(N, latent_dim)`."""
    if z.ndim != 2 or z.shape[1] != latent_dim:
        raise ValueError(f"latents must have the shape (N, {latent_dim}), got {tuple(z.shape)}")


def check_images(images: Tensor, image_channels: int, image_size: int) -> None:
    """Raises `ValueError` unless images have the shape `(N, channels, size, size)`."""
    expected = (image_channels, image_size, image_size)
    if images.ndim != 4 or images.shape[1:] != expected:
        raise ValueError(
            f"images must have the shape (N, {', '.join(map(str, expected))}), "
            f"got {tuple(images.shape)}"
        )


def check_positive(**widths: int) -> None:
    """Raises `ValueError`, with the name of a width that is not positive, if there is one."""
    for name, width in widths.items():
        if width < 1:
            raise ValueError(f"{name} must be at least 1, got {width}")


def check_image_channels(image_channels: int) -> None:
    """Raises `ValueError` unless images are grey (1) or colour (3)."""
    if image_channels not in (1, 3):
        raise ValueError(f"image_channels must be 1 or 3, got {image_channels}")
