"""Configuration files; `default.yaml` documents every key."""
