"""Which latent frames are made, in which order, seeing which others: numpy and the standard library only."""
