"""How the embedded model is trained on toyworld, and judged by it."""
