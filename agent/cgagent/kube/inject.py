"""What is added to a pod so that its Go programs start with the right values. Pure: one plan for files and admission.

The address of everything that is added stands in the annotation `cgagent.dev/injected`, so that it can be taken
out again to the byte.
"""

from __future__ import annotations

from cgagent.kube import pieces
from cgagent.kube.additions import Addition
from cgagent.kube.settings import BUNDLE, DOMAIN, EXIT, FILEKEYREF, INJECTED, SIDECAR, Settings, overridden, unknown
from cgagent.kube.targets import OWN, SkippedError, Target, targets_of
from cgagent.kube.workload import as_list, as_map, is_best_effort, named, requested
from cgagent.policy import parse_yes
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cgagent.kube.additions import Path

_FIRST_PORT = 9101
_NAME = "cgagent"
_OWN_IDENTITY = "65532:65532"


class Plan(Record):
    """What to add to a pod template, and what to tell about it.

    Attributes:
        additions: relative to the template.
        summary: one line: how, for which containers and variables.
        notes: what a person should know, one line each.
    """

    __slots__ = ("additions", "notes", "summary")

    def __init__(self, additions: list[Addition], summary: str, notes: list[str]) -> None:
        self.additions = additions
        self.summary = summary
        self.notes = notes


def plan(template: Mapping[str, object], text_of: Callable[[str], tuple[str, str] | None]) -> Plan:
    """What to add to `template` (a pod, or a pod template), with the settings' texts from `text_of`.

    Raises:
        SkippedError: nothing is to be added, and why.
        UsageError: an option or an annotation does not fit.
    """
    annotations = as_map(as_map(template.get("metadata")).get("annotations"))
    spec = as_map(template.get("spec"))
    _check(spec, annotations)
    settings = Settings(overridden(text_of, annotations))
    notes = [f"the annotation {name} is not known, and not heeded" for name in unknown(annotations)]
    targets = targets_of(spec, annotations, settings, notes)
    draft = _Draft(template, settings, notes)
    {FILEKEYREF: draft.init, SIDECAR: draft.sidecar, BUNDLE: draft.bundle}[settings.mode](targets)
    draft.finish()
    if is_best_effort(spec):
        notes.append("it requests nothing (BestEffort): by cgagent's own requests it becomes Burstable")
    return Plan(draft.additions, _summary(settings.mode, targets), notes)


def _check(spec: Mapping[str, object], annotations: Mapping[str, object]) -> None:
    wish = f"{DOMAIN}/inject"
    given = str(annotations.get(wish, "enabled"))
    if given == "disabled" or (given != "enabled" and not parse_yes(given, f"annotation {wish}")):
        raise SkippedError(f"the annotation {wish} says {given}")
    if INJECTED in annotations:
        raise SkippedError("cgagent is in it already")
    if not named(spec.get("containers")):
        raise SkippedError("it has no containers")
    systems = (as_map(spec.get("os")).get("name"), as_map(spec.get("nodeSelector")).get("kubernetes.io/os"))
    if "windows" in systems:
        raise SkippedError("it is for Windows")


def _summary(mode: str, targets: list[Target]) -> str:
    told = [f"{one.name} ({', '.join(one.variables) or 'started by cgagent exec'})" for one in targets]
    return f"{mode}: {', '.join(told)}"


class _Draft:
    """The additions as they come together; each with the address that it can be found by later."""

    def __init__(self, template: Mapping[str, object], settings: Settings, notes: list[str]) -> None:
        self.additions: list[Addition] = []
        self._template = template
        self._spec = as_map(template.get("spec"))
        self._settings = settings
        self._notes = notes
        self._addresses: list[str] = []
        containers = as_list(self._spec.get("containers"))
        self._taken = set(named(containers)) | set(named(self._spec.get("initContainers")))
        self._volumes = set(named(self._spec.get("volumes")))
        ports = [as_map(port) for one in containers for port in as_list(as_map(one).get("ports"))]
        self._ports = {port.get(key) for port in ports for key in ("containerPort", "hostPort")}

    def init(self, targets: list[Target]) -> None:
        """An init container for each target that writes its env file, once."""
        volume = self._volume("env")
        containers = []
        for target in targets:
            file = _file(target, targets)
            words = ["write", *pieces.deciding_args(target, self._settings, file), "--limits-from=given"]
            container = self._container(pieces.INIT_RESOURCES, words, self._identity())
            container["env"] = pieces.in_environment(target)
            container["volumeMounts"] = [pieces.mount(volume, pieces.DIRECTORY)]
            containers.append(container)
            self._variables(target, volume, file)
            if _restarts_on_resize(target):
                self._notes.append(
                    f"container {target.name}: a resize restarts it with the old values: only --mode sidecar follows"
                )
        self._extend(("spec", "initContainers"), containers, first=True)
        self._extend(("spec", "volumes"), [pieces.memory_volume(volume, pieces.ENV_VOLUME_SIZE)])

    def sidecar(self, targets: list[Target]) -> None:
        """A native sidecar for each target that writes its env file, and again when its limits change."""
        shares = self._shares(targets)
        volume = self._volume("env")
        containers: list[dict[str, object]] = []
        volumes = [pieces.memory_volume(volume, pieces.ENV_VOLUME_SIZE)]
        token = pieces.token_volume(self._volume("token")) if self._settings.confirm_raises and not shares else None
        for target in targets:
            file = _file(target, targets)
            limits = pieces.limits_volume(self._volume("limits"), target)
            container = self._sidecar(target, file, volume, limits, shares=shares)
            containers.append(container)
            if as_list(as_map(limits["downwardAPI"]).get("items")):
                volumes.append(limits)
                if token is not None:
                    _confirm(container, target, token)
            self._variables(target, volume, file)
            if _restarts_on_resize(target):
                self._pause_before_stop(target)
        if len(volumes) > 1:
            volumes += self._confirmation(token, shares=shares)
        self._extend(("spec", "initContainers"), containers, first=True)
        self._extend(("spec", "volumes"), volumes)
        if shares:
            self._add(("spec", "shareProcessNamespace"), value=True)

    def _confirmation(self, token: dict[str, object] | None, *, shares: bool) -> list[dict[str, object]]:
        """The volume that it takes to know a wish from what is granted, if any; a person is told what else."""
        if token is not None:
            account = self._spec.get("serviceAccountName") or self._spec.get("serviceAccount") or "default"
            self._notes.append(
                f"confirm-raises: service account {account} has to be let get pods (k8s/components/confirm-raises); "
                "until then no raise is taken"
            )
            return [token]
        if not shares:
            self._notes.append(
                "a raised limit is written when it is asked for, in force or not: "
                "--share-process-namespace or --confirm-raises tells which"
            )
        elif self._settings.confirm_raises:
            self._notes.append("confirm-raises is left out: in a shared process namespace the sidecar sees the cgroup")
        return []

    def _sidecar(
        self, target: Target, file: str, volume: str, limits: dict[str, object], *, shares: bool
    ) -> dict[str, object]:
        words = ["watch", *pieces.deciding_args(target, self._settings, file)]
        words.append("--target=auto" if shares else "--limits-from=given")
        words.append(f"--state-dir={pieces.DIRECTORY}")
        mounts = [pieces.mount(volume, pieces.DIRECTORY)]
        if as_list(as_map(limits["downwardAPI"]).get("items")):
            words.append(f"--limits-dir={pieces.LIMITS_DIRECTORY}")
            mounts.append(pieces.mount(str(limits["name"]), pieces.LIMITS_DIRECTORY, read_only=True))
        container = self._container(pieces.SIDECAR_RESOURCES, words, self._identity(target if shares else None))
        container["restartPolicy"] = "Always"
        env = pieces.not_in_volume(target)
        # Where `tune`, started in the sidecar, notes what it has set.
        container["env"] = [{"name": "CGAGENT_STATE_DIR", "value": pieces.STATE_DIRECTORY}, *env]
        if env:
            self._notes.append(f"container {target.name}: the pod's own limits don't show in a volume: not followed")
        port = self._port()
        if port:
            words.append(f"--web.listen-address=:{port}")
            container["ports"] = [{"name": pieces.PORT_NAME, "containerPort": port}]
        self._hook(container, words, shares=shares)
        container["args"] = words
        container["lifecycle"] = pieces.wait_for_file(file)
        container["volumeMounts"] = mounts
        return container

    def _hook(self, container: dict[str, object], words: list[str], *, shares: bool) -> None:
        """What the sidecar does after a change, if anything: on the process that it sees, or by its own exit code."""
        kind, _, value = self._settings.hook.partition(":")
        if not kind:
            return
        if kind == EXIT:
            container["restartPolicyRules"] = pieces.restart_all(int(value))
        elif not shares:
            self._notes.append(f"hook {self._settings.hook} is left out: the sidecar does not see the application")
            return
        words.append(f"--hook={self._settings.hook}")

    def bundle(self, targets: list[Target]) -> None:
        """An init container that copies cgagent to where the targets' commands start with it."""
        volume = self._volume("bundle")
        program = f"{pieces.DIRECTORY}/cgagent"
        container = self._container(pieces.INIT_RESOURCES, ["install-bundle", pieces.DIRECTORY], self._identity())
        container["volumeMounts"] = [pieces.mount(volume, pieces.DIRECTORY)]
        prefix = [program, "exec", "--on-error=ignore", *pieces.policy_args(self._settings), "--"]
        for target in targets:
            mounts = [as_map(one).get("mountPath") for one in as_list(target.container.get("volumeMounts"))]
            if pieces.DIRECTORY in [str(one).rstrip("/") for one in mounts]:
                raise SkippedError(f"container {target.name} has something mounted at {pieces.DIRECTORY}")
            where = ("spec", "containers", target.index)
            self._extend((*where, "volumeMounts"), [pieces.mount(volume, pieces.DIRECTORY, read_only=True)])
            self._command((*where, "command"), prefix, target)
        self._extend(("spec", "initContainers"), [container], first=True)
        self._extend(("spec", "volumes"), [pieces.memory_volume(volume, pieces.BUNDLE_VOLUME_SIZE)])

    def _command(self, path: Path, prefix: list[str], target: Target) -> None:
        if not as_list(target.container.get("command")):
            self._add(path, [*prefix, *self._settings.entrypoints[target.name]])
            return
        self.additions += [Addition((*path, at), word) for at, word in enumerate(prefix)]
        self._addresses.append(f"{self._address(path)}/:{len(prefix)}")

    def _container(self, resources: dict[str, str], words: list[str], identity: str) -> dict[str, object]:
        name = _free(_NAME, self._taken)
        self._taken.add(name)
        # What the containers ask for may not exceed what the pod asks for, which by default is what they ask for.
        stated = requested(self._spec)
        own = {resource: amount for resource, amount in resources.items() if resource not in stated}
        return pieces.container(name, self._settings, identity, own, words)

    def _volume(self, what: str) -> str:
        name = _free(f"{_NAME}-{what}", self._volumes)
        self._volumes.add(name)
        return name

    def _port(self) -> int | None:
        """A port for the metrics that nothing in the pod has; on the node's own network there is none to take."""
        if self._spec.get("hostNetwork") is True:
            self._notes.append("hostNetwork: no metrics are served, for their port would be the node's")
            return None
        port = next(port for port in range(_FIRST_PORT, 65536) if port not in self._ports)
        self._ports.add(port)
        if port != _FIRST_PORT and len(self._ports) == 1:
            self._notes.append(f"port {_FIRST_PORT} is taken: metrics are served at {port}")
        return port

    def _identity(self, target: Target | None = None) -> str:
        """`UID:GID` to run as, the target's own to see into it; empty: as the pod or else the image has it."""
        if self._settings.run_as:
            return self._settings.run_as
        pod = as_map(self._spec.get("securityContext"))
        if target is not None:
            own = {**pod, **as_map(target.container.get("securityContext"))}
            user, group = own.get("runAsUser"), own.get("runAsGroup")
            if isinstance(user, int) and isinstance(group, int) and user:
                return f"{user}:{group}"
            self._notes.append(
                f"container {target.name}: its runAsUser and runAsGroup are not given (or root): the sidecar sees its "
                "cgroup only if they are the same: --run-as UID:GID"
            )
        # Our containers refuse to be root (runAsNonRoot), which must not fail the pod.
        return _OWN_IDENTITY if pod.get("runAsUser") == 0 else ""

    def _shares(self, targets: list[Target]) -> bool:
        """Whether the pod is to share one process namespace."""
        if not self._settings.share_process_namespace:
            return False
        containers = named(self._spec.get("containers"))
        reason = ""
        if len(containers) > 1 or len(targets) > 1:
            reason = "several containers, among which the application can't be told"
        elif "shareProcessNamespace" in self._spec:
            reason = "the manifest says itself what it wants"
        elif self._spec.get("hostPID") is True:
            reason = "hostPID excludes it"
        if reason:
            self._notes.append(f"shareProcessNamespace is not set: {reason}")
        return not reason

    def _variables(self, target: Target, volume: str, file: str) -> None:
        entries = [pieces.file_reference(variable, volume, file) for variable in target.variables]
        self._extend(("spec", "containers", target.index, "env"), entries)

    def _pause_before_stop(self, target: Target) -> None:
        """A second for the sidecar: without it a restarted container reads the old file 4 times in 10."""
        lifecycle = as_map(target.container.get("lifecycle"))
        path: Path = ("spec", "containers", target.index, "lifecycle")
        if lifecycle.get("preStop") is not None:
            self._notes.append(f"container {target.name}: its preStop hook has to take a second for resizes to be seen")
            return
        sleep = {"sleep": {"seconds": 1}}
        self._addresses.append(f"{self._address(path)}/preStop")
        if isinstance(target.container.get("lifecycle"), dict):
            self.additions.append(Addition((*path, "preStop"), sleep))
        else:
            self._new_entry(path, {"preStop": sleep})

    def finish(self) -> None:
        """Note what was added, in an annotation of the template."""
        path, value = self._annotation()
        self._addresses.append(f"metadata/annotations/{INJECTED.replace('/', '~1')}")
        if len(path) == 1:
            self._addresses.append("metadata/annotations/")
        if len(path) < 3:
            self._new_entry(path, value)
        else:
            self.additions.append(Addition(path, value))
        # Last, for only now all addresses are known.
        text = " ".join([self._settings.mode, *self._addresses])
        self.additions[-1] = Addition(path, _with_text(value, text))

    def _annotation(self) -> tuple[Path, object]:
        """Where the annotation goes, and what is added there around it."""
        metadata = self._template.get("metadata")
        if not isinstance(metadata, dict):
            return ("metadata",), {"annotations": {INJECTED: ""}}
        if not isinstance(metadata.get("annotations"), dict):
            return ("metadata", "annotations"), {INJECTED: ""}
        return ("metadata", "annotations", INJECTED), ""

    def _new_entry(self, path: Path, value: object) -> None:
        """A new entry, which goes when it holds nothing any more; a key that had a null keeps it."""
        if str(path[-1]) not in as_map(_at(self._template, path[:-1])):
            self._addresses.append(f"{self._address(path)}/")
        self.additions.append(Addition(path, value))

    def _extend(self, path: Path, items: list[dict[str, object]], *, first: bool = False) -> None:
        """Put `items` into the list at `path`, which may not be there yet."""
        address = self._address(path)
        self._addresses += [f"{address}/{item['name']}" for item in items]
        found = _at(self._template, path)
        if not isinstance(found, list):
            self._new_entry(path, items)
            return
        start = 0 if first else len(found)
        self.additions += [Addition((*path, start + at), item) for at, item in enumerate(items)]

    def _add(self, path: Path, value: object) -> None:
        self._addresses.append(self._address(path))
        self.additions.append(Addition(path, value))

    def _address(self, path: Path) -> str:
        """`path` with names in the place of indices: other additions and other tools may move an item."""
        steps: list[str] = []
        at: object = self._template
        for step in path:
            if isinstance(step, int):
                at = as_list(at)[step]
                steps.append(str(as_map(at).get("name")))
            else:
                at = as_map(at).get(step)
                steps.append(step)
        return "/".join(steps)


def _at(template: Mapping[str, object], path: Path) -> object:
    at: object = template
    for step in path:
        at = as_list(at)[step] if isinstance(step, int) else as_map(at).get(step)
    return at


def _with_text(value: object, text: str) -> object:
    """`value` with `text` in its innermost place."""
    return {key: _with_text(one, text) for key, one in value.items()} if isinstance(value, dict) else text


def _confirm(container: dict[str, object], target: Target, token: dict[str, object]) -> None:
    """Have the sidecar `container` ask before it takes a raised limit."""
    container["args"] = [*as_list(container["args"]), f"--confirm-raises={target.name}"]
    container["env"] = [*as_list(container["env"]), *pieces.confirming_env(target)]
    mount = pieces.mount(str(token["name"]), pieces.ACCOUNT_DIRECTORY, read_only=True)
    container["volumeMounts"] = [*as_list(container["volumeMounts"]), mount]


def _file(target: Target, targets: list[Target]) -> str:
    return "go.env" if len(targets) == 1 else f"{target.name}.env"


def _free(name: str, taken: set[str]) -> str:
    """`name`, or with the first number that makes it new."""
    numbered = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
    return next(one for one in numbered if one not in taken)


def _restarts_on_resize(target: Target) -> bool:
    policies = [as_map(one).get("restartPolicy") for one in as_list(target.container.get("resizePolicy"))]
    return "RestartContainer" in policies and OWN in target.sources.values()
