"""Differential privacy: releases of clipped sums with noise, what they cost, the budget that they may not exceed."""
