"""The training of the embedded model on toyworld, and the judge of its videos."""
