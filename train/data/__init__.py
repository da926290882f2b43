"""Readers of the corpora, one module each."""
