"""From noise to latents: schedules, solvers and guidance, on plain floats and any kind of array."""
