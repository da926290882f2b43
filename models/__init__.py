"""Sentiment models: plain PyTorch modules that know nothing of clocks, devices to capture from, or data sets."""
