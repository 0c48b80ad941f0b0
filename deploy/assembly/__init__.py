"""How cgagent's bundle and image are put together from Debian's Python, without a container engine."""
