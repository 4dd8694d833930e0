"""What stands before a network: tokenizers and the preparation of pictures."""
