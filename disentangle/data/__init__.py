"""Data sets with ground-truth factors and folders of images."""
