"""Each network, once, over the backend; parameter names are the published ones."""
