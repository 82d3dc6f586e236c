"""Coresets: real examples chosen to stand for a data set."""
