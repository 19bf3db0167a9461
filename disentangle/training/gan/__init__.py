"""Training of generators against a discriminator."""
