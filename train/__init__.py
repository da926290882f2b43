"""Training and evaluation: corpora in, metrics and checkpoints out.

This package stands at the top: it may use `stream`, `extractors` and `models`, and none of them knows it. It is installed
with the extra `mmlatch-live[train]`.
"""
