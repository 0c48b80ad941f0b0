"""Which modules a program may ever import: read from its sources, not from one run of it."""

from __future__ import annotations

import ast
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Modules:
    """Python sources below some directories, by the name that `import` knows them by."""

    def __init__(self, directories: Iterable[str]) -> None:
        self.directories = tuple(directories)

    def find(self, name: str) -> tuple[str, bool] | None:
        """Path and whether it is a package; None where no source of that name is."""
        for directory in self.directories:
            base = os.path.join(directory, *name.split("."))
            if os.path.isfile(f"{base}/__init__.py"):
                return f"{base}/__init__.py", True
            if os.path.isfile(f"{base}.py"):
                return f"{base}.py", False
        return None

    def below(self, package: str) -> list[str]:
        """Every module of a package, itself included."""
        found = self.find(package)
        if found is None:
            return []
        top = os.path.dirname(found[0])
        names = []
        for directory, _, files in os.walk(top):
            parts = [package, *os.path.relpath(directory, top).split("/")]
            prefix = ".".join(part for part in parts if part != ".")
            sources = [file[:-3] for file in files if file.endswith(".py")]
            names += [prefix if name == "__init__" else f"{prefix}.{name}" for name in sources]
        return sorted(names)

    def closure(
        self, roots: Iterable[str], own: Iterable[str], cut: Iterable[str]
    ) -> tuple[dict[str, tuple[str, bool]], set[str]]:
        """The modules that `roots` may import, directly or not, and the names for which there is no source.

        Of a module in one of the packages `own` what its functions import counts too; of the libraries, which import
        half the standard library in functions that nobody here calls, what is imported when they load. A module
        in `cut`, or below one, is left out with all that only it imports.
        """
        found: dict[str, tuple[str, bool]] = {}
        sourceless: set[str] = set()
        cuts, queue = tuple(cut), list(roots)
        deep = set(own)
        while queue:
            name = queue.pop()
            if name in found or name in sourceless or any(name == one or name.startswith(f"{one}.") for one in cuts):
                continue
            place = self.find(name)
            if place is None:
                sourceless.add(name)
                continue
            found[name] = place
            parent = name.rpartition(".")[0]
            queue += [parent] if parent else []
            queue += self._imports(name, *place, name.partition(".")[0] in deep)
        return found, sourceless

    def _imports(self, name: str, path: str, is_package: bool, deep: bool) -> Iterator[str]:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
        package = name if is_package else name.rpartition(".")[0]
        for node in _run(tree, deep):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = package.split(".")[: len(package.split(".")) - node.level + 1]
                    base = ".".join([*above, base] if base else above)
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if self.find(f"{base}.{alias.name}"))


def _run(tree: ast.AST, deep: bool) -> Iterator[ast.AST]:
    """The nodes of `tree` but for what only a type checker runs, or `python -m`; `deep`: those of functions too."""
    queue = [tree]
    while queue:
        node = queue.pop()
        yield node
        if isinstance(node, ast.If) and _never(node.test):
            queue += node.orelse
        elif deep or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            queue += ast.iter_child_nodes(node)


def _never(test: ast.expr) -> bool:
    if isinstance(test, ast.Name):
        return test.id == "TYPE_CHECKING"
    if isinstance(test, ast.Attribute):
        return test.attr == "TYPE_CHECKING"
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"
