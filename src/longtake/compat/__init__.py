"""The interface of diffusers and mindone over the one loop: their names, defaults and keywords."""
