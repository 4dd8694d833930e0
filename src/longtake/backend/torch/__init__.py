"""The PyTorch side of the backend."""
