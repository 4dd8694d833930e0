"""From a job to frames: request, the one loop, decoding."""
