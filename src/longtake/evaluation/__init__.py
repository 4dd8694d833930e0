"""The changes of a video with time: curves of what is measured in its frames, and what sums them up."""
