"""Images of every combination of known factors, official and rendered."""
