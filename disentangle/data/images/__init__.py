"""Images without classes, from files."""
