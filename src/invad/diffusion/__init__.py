"""Noise schedule, DDIM inversion and the networks that predict noise. See ddim.py first.

Order of imports: schedule, ddim, readings, base, dit, mlp, gaussian, empirical, denoiser.
"""
