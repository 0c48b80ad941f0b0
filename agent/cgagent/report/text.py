"""`explain` for a person at a shell: what was seen, what was decided and why, and what is wrong. Pure."""

from __future__ import annotations

from cgagent import __version__
from cgagent.cgroup.numbers import format_cpu_list
from cgagent.errors import printable
from cgagent.report import program
from cgagent.report.running import rows
from cgagent.units import format_cpus, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cgagent.cgroup.limits import CpuLimit, MemoryLimit
    from cgagent.report.findings import Finding
    from cgagent.report.picture import Picture

_BAR_CELLS = 10
_COLOURS = {"critical": "31;1", "warning": "33;1", "info": "36", "heading": "1", "dim": "2", "value": "32;1"}


class Style:
    """How the text may look.

    Attributes:
        colour: whether escape sequences for colour are wanted.
        blocks: whether the terminal draws block characters; else bars are plain ASCII.
    """

    __slots__ = ("blocks", "colour")

    def __init__(self, colour: bool = False, blocks: bool = False) -> None:
        self.colour = colour
        self.blocks = blocks

    def paint(self, text: str, what: str) -> str:
        """`text` in the colour for `what`, made printable: much of it comes from files and processes."""
        text = printable(text)
        return f"\x1b[{_COLOURS[what]}m{text}\x1b[0m" if self.colour else text

    def bar(self, share: float) -> str:
        """`share` of a whole as a bar and a percentage."""
        full = min(_BAR_CELLS, max(0, round(share * _BAR_CELLS)))
        on, off = ("█", "░") if self.blocks else ("#", ".")
        return f"{on * full}{off * (_BAR_CELLS - full)} {share:.0%}"


def render(picture: Picture, findings: list[Finding], style: Style) -> str:
    """The whole explanation, with a final newline."""
    of = "this process" if picture.pid == "self" else f"process {picture.pid}"
    where = "" if picture.root == "/" else f" in {picture.root}"
    parts = [
        [style.paint(f"cgagent {__version__}: {of}{where}", "heading"), *_capture(picture.capture)],
        list(_where(picture, style)),
        list(_limits(picture, style)),
        list(_decision(picture, style)),
        *_alone(picture, style),
        *([list(_running(picture, style))] if picture.running is not None else []),
        list(_findings(findings, style)),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _capture(meta: Mapping[str, object] | None) -> list[str]:
    """When and where a capture was taken, as far as it tells."""
    if meta is None:
        return []
    known = {"taken": meta["taken"], "on Linux": meta["kernel"], "as process": meta["pid"]}
    said = [f"{words} {value}" for words, value in known.items() if value is not None]
    refused = meta["missing"]
    said += [f"{len(refused)} files refused"] if isinstance(refused, list) and refused else []
    said += ["seen from outside its cgroup namespace"] if meta["view"] == "outside" else []
    return [printable(f"  captured: {', '.join(said)}")] if said else []


def _table(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """`rows` in columns; the last one is as long as it is, as Kubernetes' paths of 150 letters are."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in shown) for index in range(len(shown[0]) - 1)]
    return [
        (indent + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])).rstrip()
        for row in shown
    ]


def _where(picture: Picture, style: Style) -> Iterator[str]:
    standing = picture.limits.standing
    modes = {"hybrid": "hybrid (v1 and v2)", "none": "none mounted", None: "not known"}
    yield style.paint("cgroups  ", "heading") + modes.get(standing.mode, str(standing.mode))
    rows = []
    for controller in ("cpu", "memory", "cpuset"):
        hierarchy = standing.hierarchy_of(controller)
        if hierarchy is not None:
            mount = hierarchy.mount or "no mount shows it"
            rows.append((controller, f"v{hierarchy.version}", mount, hierarchy.path))
    if rows:
        yield from _table([("controller", "", "mount", "path"), *rows])
    if picture.go is not None:
        yield style.paint("program  ", "heading") + printable(
            f"{picture.go.path or picture.go.module or 'not named'}, {picture.go.go_version}"
        )


def _limits(picture: Picture, style: Style) -> Iterator[str]:
    yield style.paint("limits", "heading")
    cpu, memory = picture.limits.cpu, picture.limits.memory
    rows = [
        ("resource", "limit", "in use", "from"),
        ("cpu", _cores(picture), _throttling(picture), _quota_source(cpu)),
        ("cpus", _cpus(cpu), "", _cpus_source(cpu)),
        ("memory", _bytes(picture), _memory_use(picture, style), _memory_source(memory)),
        *_other_rows(picture, style),
    ]
    yield from _table(rows)
    levels = list(_levels(cpu, memory))
    limited = [link for link in cpu.chain if link.quota.cores is not None] or memory.bytes is not None
    if limited and len({path for *_, path in levels}) > 1:
        yield ""
        yield style.paint("levels, innermost first", "heading")
        yield from _table([("file", "text", "", "cgroup"), *levels])


def _levels(cpu: CpuLimit, memory: MemoryLimit) -> Iterator[tuple[str, str, str, str]]:
    for link in cpu.chain:
        yield link.file.rpartition("/")[2], link.quota.raw, _mark(link is cpu.binding), link.path
    for bound in memory.chain:
        name = bound.file.rpartition("/")[2]
        # v1's hierarchical_memory_limit says something new only where a cgroup that can't be seen binds.
        if name != "memory.stat" or bound is memory.binding:
            text = f"{bound.raw} (no limit)" if bound.bytes is None and bound.raw != "max" else bound.raw
            yield name, text, _mark(bound is memory.binding), bound.path


def _mark(binds: bool) -> str:
    return "<- binds" if binds else ""


def _cores(picture: Picture) -> str:
    cpu = picture.limits.cpu
    if cpu.cores is not None:
        return format_cpus(cpu.cores) + ("" if cpu.counts else " (another cgroup's)")
    return "not known" if picture.limits.blocked("cpu") else "none"


def _bytes(picture: Picture) -> str:
    memory = picture.limits.memory
    if memory.bytes is not None:
        return format_size(memory.bytes) + ("" if memory.counts else " (another cgroup's)")
    return "not known" if picture.limits.blocked("memory") else "none"


def _quota_source(cpu: CpuLimit) -> str:
    if cpu.given is not None:
        return f"{cpu.given.source} {cpu.given.text}"
    return f"{cpu.binding.file}: {cpu.binding.quota.raw}" if cpu.binding else ""


def _memory_source(memory: MemoryLimit) -> str:
    if memory.given is not None:
        return f"{memory.given.source} {memory.given.text}"
    return f"{memory.binding.file}: {memory.binding.raw}" if memory.binding else ""


def _throttling(picture: Picture) -> str:
    binding = picture.limits.cpu.binding
    stat = picture.usage.throttling_by_path.get(binding.path, {}) if binding else picture.usage.throttling
    periods, throttled, waited = stat.get("periods"), stat.get("throttled_periods"), stat.get("throttled_seconds")
    if not periods or throttled is None:
        used = picture.usage.cpu.get("usage_seconds")
        return "" if used is None else f"{used:.1f} s used"
    told = f"throttled in {throttled / periods:.0%} of periods"
    return told if waited is None else f"{told}, {waited:.1f} s"


def _cpus(cpu: CpuLimit) -> str:
    if cpu.allowed is None:
        return "not known"
    return f"{len(cpu.allowed)} of {len(cpu.online)}" if cpu.online else str(len(cpu.allowed))


def _cpus_source(cpu: CpuLimit) -> str:
    parts = []
    if cpu.cpuset is not None:
        parts.append(f"{cpu.cpuset[0]}: {format_cpu_list(cpu.cpuset[1])}")
    if cpu.affinity is not None:
        parts.append(f"affinity: {format_cpu_list(cpu.affinity)}")
    return "; ".join(parts)


def _memory_use(picture: Picture, style: Style) -> str:
    used, limit = picture.usage.memory.get("usage_bytes"), picture.limits.memory.bytes
    if used is None:
        return ""
    shown = format_size(int(used))
    return f"{shown}  {style.bar(used / limit)}" if limit and not picture.limits.memory.foreign else shown


def _other_rows(picture: Picture, style: Style) -> Iterator[tuple[str, str, str, str]]:
    usage = picture.usage
    peak, high = usage.memory.get("peak_bytes"), usage.memory.get("high_bytes")
    swap, swapped = usage.memory.get("swap_limit_bytes"), usage.memory.get("swap_usage_bytes")
    if high is not None:
        yield "memory high", format_size(int(high)), "", "memory.high: beyond it the kernel reclaims and slows"
    if swap is not None or swapped:
        in_use = "" if swapped is None else format_size(int(swapped))
        yield "swap", "none" if swap is None else format_size(int(swap)), in_use, "shown, never counted"
    if peak is not None:
        yield "memory peak", "", format_size(int(peak)), ""
    current, most = usage.pids.get("current"), usage.pids.get("limit")
    if current is not None:
        in_use = f"{current}  {style.bar(current / most)}" if most else str(current)
        yield "pids", "none" if most is None else str(most), in_use, ""
    weight = usage.cpu.get("weight") or usage.cpu.get("shares")
    if weight is not None:
        name = "cpu.weight" if usage.cpu.get("weight") else "cpu.shares"
        yield name, str(weight), "", "shown, never counted"
    if usage.cpu.get("burst_us"):
        yield "cpu burst", f"{usage.cpu['burst_us']} us", "", "shown, never counted"
    for resource, seconds in usage.pressure.items():
        told = ", ".join(f"{word} {seconds[key]:.1f} s" for key, word in _PRESSURE_WORDS.items() if key in seconds)
        yield f"{resource} pressure", "", told, ""


# As node_exporter and cAdvisor call PSI's `some` and `full`.
_PRESSURE_WORDS = {"some_seconds": "waiting", "full_seconds": "stalled"}


def _decision(picture: Picture, style: Style) -> Iterator[str]:
    yield style.paint("decision", "heading")
    rows = []
    for name, choice in picture.decision.choices():
        if choice.kept is not None:
            own = f"{choice.value}, " if choice.value is not None else ""
            rows.append(
                (f"{name}", f"left at '{choice.kept}', which the environment has; by the limits: {own}{choice.reason}")
            )
        elif choice.value is not None:
            rows.append((f"{name}={choice.value}", choice.reason))
        else:
            rows.append((f"{name} unset", choice.reason))
    yield from (
        line if not style.colour else line.replace(row[0], style.paint(row[0], "value"), 1)
        for line, row in zip(_table(rows), rows, strict=True)
    )


def _alone(picture: Picture, style: Style) -> Iterator[list[str]]:
    prediction = program.alone(picture)
    if prediction is not None:
        yield [style.paint("by itself the program would run with", "heading"), *_table(list(program.rows(prediction)))]


def _running(picture: Picture, style: Style) -> Iterator[str]:
    yield style.paint("running now", "heading")
    yield from _table(list(rows(picture)))


def _findings(findings: list[Finding], style: Style) -> Iterator[str]:
    yield style.paint("findings", "heading") + ("" if findings else "  none")
    for finding in findings:
        title = f"{style.paint(finding.level, finding.level)} {style.paint(finding.id, 'heading')}"
        yield f"  {title}: {printable(finding.message)}"
        yield f"    {style.paint('-> ' + finding.remedy, 'dim')}"
