"""What is trained: generators with SVD latent layers, and their adversaries."""
