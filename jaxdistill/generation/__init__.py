"""Decoding from language models: sampling, contrastive decoding, constrained choice, texts."""
