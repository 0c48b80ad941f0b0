"""Compile modules to marshalled code: run by the Python whose bytecode it is to be.

stdin: lines of `NAME TAB SOURCE`. Argument: a directory; each code object goes to NAME there. Docstrings and
asserts are left out (as by -OO), and no path of this machine is kept. MAGIC gets the .pyc magic number.
"""

import importlib.util
import marshal
import os
import sys


def main() -> None:
    """Compile all."""
    directory = sys.argv[1]
    with open(os.path.join(directory, "MAGIC"), "wb") as file:
        file.write(importlib.util.MAGIC_NUMBER)
    for line in sys.stdin:
        name, path = line.rstrip("\n").split("\t")
        with open(path, "rb") as file:
            source = file.read()
        shown = f"<cgagent>/{name.replace('.', '/')}.py"
        code = compile(source, shown, "exec", dont_inherit=True, optimize=2)
        with open(os.path.join(directory, name), "wb") as file:
            file.write(marshal.dumps(code))


main()
