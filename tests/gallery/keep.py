"""Turns a capture into a text of the gallery.

keep.py FILE.tar.gz "real: how it was taken" > real/NAME.txtar
"""

from __future__ import annotations

import sys

from cgagent.capture import load
from support import txtar

if __name__ == "__main__":
    sys.stdout.write(txtar.dump(load(sys.argv[1]), sys.argv[2]))
