"""Samples of the generators of a report."""

from collections.abc import Sequence

from PIL import Image

from disentangle.data.images.decoding import open_image
from disentangle.reporting.document import Block, Picture, Points, Section
from disentangle.reporting.generators import ShownGenerator
from disentangle.reporting.pictures import picture_of_image

TITLE = "Samples"
LEAST = 480  # px: smaller sheets are enlarged


def show_samples(shown: Sequence[ShownGenerator]) -> Section:
    """The newest sheet of one run of each experiment."""
    blocks: list[Block] = []
    missing = []
    for generator in shown:
        picture = _show_sheet(generator)
        if picture is None:
            missing.append(f"{generator.title(generator.run)}: no sheet of samples")
        else:
            blocks.append(picture)
    return Section(TITLE, [*blocks, Points(missing)] if missing else blocks)


def _show_sheet(generator: ShownGenerator) -> Picture | None:
    """The newest sheet of an experiment's first run; None if there is none, or it is no image."""
    # Their names have the step with leading zeros.
    file = max(generator.run.folder.samples.glob("step-*.png"), default=None)
    if file is None:
        return None
    try:
        with open_image(file) as image:
            sheet = image.convert("RGB")
    except Exception:  # each kind of damage raises its own
        return None
    scale = max(1, round(LEAST / sheet.width))
    sheet = sheet.resize((scale * sheet.width, scale * sheet.height), Image.Resampling.NEAREST)
    words = f"Sheet of samples, {generator.label}."
    step = file.stem.removeprefix("step-").lstrip("0")
    caption = f"{generator.title(generator.run)}: step {step}."
    if generator.run.raw_config["task"] == "vae":
        caption += " Two rows of images, two of their reconstructions, four of new ones."
    return picture_of_image(sheet, f"samples-{generator.number}", words, caption, has_text=False)
