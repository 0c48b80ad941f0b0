"""The house: imports go downward only, and a third-party package has one home."""

from __future__ import annotations

import ast
import os
import sys

import cgagent

# Each level may import those before it; the modules of one level don't know one another. A package, and a
# module, stands where its longest name here stands.
LEVELS = (
    ("", "errors", "record"),
    ("connections", "units", "host", "parser", "pem", "wholefile", "yamltext"),
    ("cgroup", "helptext", "ptrace", "texts"),
    ("golang", "given", "policy", "capture"),
    ("report.picture",),  # what all outputs show
    ("envfile", "report", "launch"),
    ("metrics", "kube"),  # the page that the sidecar serves is a report
    ("watch", "completion"),
    ("commands",),
    ("cli",),
    ("__main__", "completion.generate", "commands.kubectl_plugin"),  # programs of their own
)
HOMES = {
    "yaml": "yamltext",
    "watchdog": "watch",
    "prometheus_client": "metrics",
    "bcrypt": "metrics",
    "pyroute2": "launch",
    "_calls": "launch",  # the bundle's own, in C
    "shtab": "completion",
}
_PACKAGE = os.path.dirname(os.path.abspath(cgagent.__file__))


def _modules() -> dict[str, ast.Module]:
    """The modules of cgagent by their name below it: `cgroup.limits`, `cgroup`, `` for cgagent itself."""
    found = {}
    for directory, _, files in os.walk(_PACKAGE):
        for file in (file for file in files if file.endswith(".py")):
            path = os.path.join(directory, file)
            parts = os.path.relpath(path, _PACKAGE).removesuffix(".py").split(os.sep)
            with open(path, encoding="utf-8") as source:
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(source.read())
    return found


MODULES = _modules()


def _imported(tree: ast.Module) -> set[str]:
    """The full names of all modules that `tree` imports, wherever in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            name = node.module or ""
            inner = {f"{name}.{alias.name}" for alias in node.names}
            names |= {one for one in inner if one.removeprefix("cgagent.") in MODULES} or {name}
    return names


def _place(module: str) -> tuple[int, str]:
    """The level of `module` and the name that it stands there by."""
    places = [(name, level) for level, names in enumerate(LEVELS) for name in names]
    fitting = [(len(name), level, name) for name, level in places if f"{module}.".startswith(f"{name}.") and name]
    assert fitting or not module, f"{module} has no place in the house: give it one in LEVELS"
    _, level, name = max(fitting, default=(0, 0, ""))
    return level, name


def test_imports_go_downward_only() -> None:
    upward = []
    for module, tree in MODULES.items():
        for name in _imported(tree):
            other = name.removeprefix("cgagent").removeprefix(".")
            if name.split(".")[0] == "cgagent" and _place(other) != _place(module):
                upward += [(module, other)] * (_place(other)[0] >= _place(module)[0])
    assert not upward, upward


def test_a_third_party_package_has_one_home() -> None:
    strays = []
    for module, tree in MODULES.items():
        for name in {name.split(".")[0] for name in _imported(tree)} - sys.stdlib_module_names - {"cgagent"}:
            home = HOMES.get(name)
            strays += [(module, name)] * (home is None or not f"{module}.".startswith(f"{home}."))
    assert not strays, strays


def test_a_package_hands_on_names_and_does_nothing_else() -> None:
    plain = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr, ast.If)
    packages = [name for name in MODULES if os.path.isdir(os.path.join(_PACKAGE, *name.split(".")))]
    busy = [name for name in packages if not all(isinstance(one, plain) for one in MODULES[name].body)]
    assert not busy, busy


def test_the_rule_itself_sees_an_import_that_goes_upward() -> None:
    assert _place("cgroup.limits") < _place("policy") < _place("report.text") < _place("commands.write") < _place("cli")
    tree = ast.parse(
        "def f():\n    from cgagent.policy import decide\n    from cgagent import envfile\n    import yaml.x\n"
    )
    assert _imported(tree) == {"cgagent.policy", "cgagent.envfile", "yaml.x"}
