"""Completion scripts, made from the commands' own declarations by `python -m cgagent.completion.generate`."""

SHELLS = ("bash", "zsh", "fish")
