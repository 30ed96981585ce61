"""Machine-learning work for others, with proof that it was done."""
