"""Noise schedule, DDIM inversion and the networks that predict noise. See ddim.py first."""
