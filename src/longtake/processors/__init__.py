"""Tokenizers and the preparation of pictures: they stand before a network."""
