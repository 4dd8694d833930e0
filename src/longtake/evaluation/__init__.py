"""How a video changes with time: curves of what is measured in its frames, and what sums them up."""
