"""The networks: sparse-structure VAE and flow, structured-latent flow and decoders, scene flow, image encoders."""
