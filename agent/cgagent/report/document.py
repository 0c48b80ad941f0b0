"""The JSON document of `explain`: schema cgagent.explain/1 (keys are only ever added). Pure."""

from __future__ import annotations

from cgagent.cgroup.numbers import format_cpu_list
from cgagent.report import program, running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cgagent.cgroup.limits import CpuLimit, Given, MemoryLimit, Wish
    from cgagent.policy import Choice
    from cgagent.report.findings import Finding
    from cgagent.report.picture import Picture

SCHEMA = "cgagent.explain/1"


def document(picture: Picture, findings: list[Finding]) -> dict[str, Any]:
    """`picture` and `findings` as plain dicts, lists, strings, numbers and None."""
    limits, usage = picture.limits, picture.usage
    return {
        "schema": SCHEMA,
        "process": {"pid": picture.pid, "root": picture.root},
        **({} if picture.capture is None else {"capture": picture.capture}),
        "cgroup": {"mode": limits.standing.mode, "hierarchies": _hierarchies(picture)},
        "limits": {"cpu": _cpu(limits.cpu), "memory": _memory(limits.memory)},
        "decision": {name: _choice(choice) for name, choice in picture.decision.choices()},
        "env": picture.decision.env(),
        "usage": {
            "cpu": usage.cpu | {"throttling": usage.throttling, "throttling_by_path": usage.throttling_by_path},
            "memory": usage.memory | {"events": usage.memory_events},
            "pids": usage.pids,
            "pressure": usage.pressure,
        },
        "go": program.document(picture),
        "running": None if picture.running is None else running.document(picture.running),
        "findings": [
            {"id": one.id, "level": one.level, "message": one.message, "remedy": one.remedy} for one in findings
        ],
    }


def _hierarchies(picture: Picture) -> list[dict[str, Any]]:
    return [
        {
            "version": one.version,
            "controllers": list(one.controllers),
            "mount": one.mount,
            "path": one.path,
            "standing": one.standing,
        }
        for one in picture.limits.standing.hierarchies
    ]


def _cpu(cpu: CpuLimit) -> dict[str, Any]:
    quota = cpu.binding.quota if cpu.binding and not cpu.foreign else None
    return {
        "cores": cpu.cores,
        "quota_us": quota and quota.quota_us,
        "period_us": quota and quota.period_us,
        "source": cpu.source,
        "binding": cpu.binding and cpu.binding.path,
        "trusted": cpu.trusted,
        "allowed_cpus": None if cpu.allowed is None else len(cpu.allowed),
        "cpuset": cpu.cpuset and {"source": cpu.cpuset[0], "cpus": format_cpu_list(cpu.cpuset[1])},
        "affinity": cpu.affinity and format_cpu_list(cpu.affinity),
        "online_cpus": cpu.online and len(cpu.online),
        "given": _given(cpu.given),
        "wished": cpu.wish and {"cores": cpu.wish.value, **_wish(cpu.wish)},
        "chain": [
            {"path": link.path, "file": link.file, "raw": link.quota.raw, "cores": link.quota.cores}
            for link in cpu.chain
        ],
    }


def _memory(memory: MemoryLimit) -> dict[str, Any]:
    return {
        "bytes": memory.bytes,
        "source": memory.source,
        "binding": memory.binding and memory.binding.path,
        "trusted": memory.trusted,
        "total_bytes": memory.total,
        "given": _given(memory.given),
        "wished": memory.wish and {"bytes": memory.wish.value, **_wish(memory.wish)},
        "chain": [
            {"path": link.path, "file": link.file, "raw": link.raw, "bytes": link.bytes} for link in memory.chain
        ],
    }


def _wish(wish: Wish) -> dict[str, Any]:
    return {"in_force": wish.fact, "source": wish.source, "reason": wish.reason or None}


def _given(given: Given | None) -> dict[str, Any] | None:
    return None if given is None else {"source": given.source, "text": given.text, "likely_none": given.likely_none}


def _choice(choice: Choice) -> dict[str, Any]:
    return {"value": choice.value, "reason": choice.reason, "kept": choice.kept}
