"""Layers that every network here is made of: attention, norms, embeddings, transformer blocks, sparse tensors."""
