"""How each kind of trial is carried out; all but the resize, which is in `following`."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile

from proof import plan
from proof.container import CGAGENT, Container, EndedError, FailedError, environment
from proof.figures import gc_share, throttled_share
from proof.generator import drive
from proof.programs import program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from proof.plan import Lengths

# Where memory is in question: as much CPU as makes every setting choose the same GOMAXPROCS.
MEMORY_CPUS = "1.5"
_EXEC = (CGAGENT, "exec")


class Bench:
    """What all trials share: a directory for files, lengths, and the requests a second that one CPU serves."""

    def __init__(self, place: str, lengths: Lengths) -> None:
        self.place = place
        self.lengths = lengths
        self.one_cpu = 0.0

    def container(
        self,
        limits: Sequence[str],
        command: Sequence[str],
        environ: dict[str, str] | None = None,
    ) -> Container:
        return Container(tempfile.mkdtemp(dir=self.place), limits, command, environ or {})

    def calibrate(self) -> None:
        """Find `one_cpu`: with a single P, under a limit of one CPU.

        Raises:
            EndedError, FailedError: the service did not work.
        """
        command = [program("service", plan.NEW)]
        with self.container(["--cpus", "1"], command, {"GOMAXPROCS": "1"}) as service:
            service.wait_ready()
            drive(service.address, self.lengths.warm_up)
            load = drive(service.address, 2 * self.lengths.closed)
        if load["failed"]:
            raise FailedError(f"the first look at the service failed: {load['failed']}: {service.ending()}")
        self.one_cpu = float(load["per_second"])


def cpu(bench: Bench, case: dict[str, Any]) -> dict[str, Any]:
    """Throughput in a closed loop, then latency in an open one."""
    setting, lengths = case["setting"], bench.lengths
    service_program = program("service", case["go"])
    command = [*_EXEC, "--", service_program] if setting == plan.CGAGENT else [service_program]
    environ = {"GOMAXPROCS": "32"} if setting == plan.BIG_HOST else {}
    rate = plan.OPEN_LOAD * case["cpus"] * bench.one_cpu
    with bench.container(["--cpus", str(case["cpus"])], command, environ) as service:
        told = service.wait_ready()
        drive(service.address, lengths.warm_up)
        before = service.stats()
        closed = drive(service.address, lengths.closed)
        periods = service.throttling()
        opened = drive(service.address, lengths.opened, rate)
        throttled = throttled_share(periods, service.throttling())
        after = service.stats()
    for load in (closed, opened):
        if load["failed"]:
            raise FailedError(f"a request failed: {load['failed']}")
    return {
        "gomaxprocs": told["gomaxprocs"],
        "rate": rate,
        "closed": closed,
        "open": opened,
        "throttled_share": throttled,
        "gc_share": gc_share(before, after),
        "peak_bytes": service.report["memory"]["peak_bytes"],
    }


def loaded(bench: Bench, service: Container, before_load: Callable[[], None] | None = None) -> dict[str, Any]:
    """A closed loop against a service under a memory limit, and whether that ended well."""
    found: dict[str, Any] = {"gomemlimit": None, "closed": None, "gc_share": None, "heap_live": None}
    try:
        found["gomemlimit"] = service.wait_ready()["gomemlimit"]
        if before_load is not None:
            before_load()
        before = service.stats()
        found["closed"] = drive(service.address, bench.lengths.memory)
        after = service.stats()
        found["gc_share"] = gc_share(before, after)
        found["heap_live"] = after["heap_live"]
    except EndedError:
        pass
    service.end()
    report = service.report
    found["killed"] = bool(report["oom_killed"])
    found["killed_after"] = found["closed"]["failed_at_seconds"] if found["killed"] and found["closed"] else None
    found["peak_bytes"] = report["memory"]["peak_bytes"]
    failed = found["closed"] is None or found["closed"]["failed"]
    if failed and not found["killed"]:
        raise FailedError(f"the service failed, and not for want of memory: {service.ending()}")
    return found


def memory(bench: Bench, case: dict[str, Any]) -> dict[str, Any]:
    """A live heap near the memory limit, and what `explain` finds wrong with that before the load comes."""
    setting = case["setting"]
    live = plan.MEMORY_LIMIT * case["live"] // 100
    command = [program("service", plan.NEW), "-live", str(live)]
    if setting == plan.NINETY:
        command = [*_EXEC, "--", *command]
    environ = {"GOMEMLIMIT": str(plan.MEMORY_LIMIT)} if setting == plan.WHOLE else {}
    told: dict[str, Any] = {"findings": []}
    with bench.container(_memory_limits(), command, environ) as service:
        found = loaded(bench, service, lambda: told.update(explained(service.pid)))
    found["findings"] = [one["id"] for one in told["findings"] if one["id"].startswith("gomemlimit-")]
    return found


def beside(bench: Bench, case: dict[str, Any]) -> dict[str, Any]:
    """Memory that Go does not manage: with all of the limit, with 90%, and with the reserve that `explain` names."""
    share, cgo = case["beside"], case["by"] == "malloc"
    service_program = program("service", plan.NEW, cgo)
    command = [service_program, "-live", str(plan.MEMORY_LIMIT * plan.BESIDE_LIVE_SHARE // 100)]
    command += ["-kind", case["by"], "-beside", str(plan.MEMORY_LIMIT * share // 100)]
    with bench.container(_memory_limits(), command, {"GOMEMLIMIT": str(plan.MEMORY_LIMIT)}) as service:
        whole = loaded(bench, service)
    told: dict[str, Any] = {}
    with bench.container(_memory_limits(), [*_EXEC, "--", *command]) as service:
        plain = loaded(bench, service, lambda: told.update(explained(service.pid)))
    reserve = reserve_of(told)
    words = ["--memory-reserve", f"{reserve}Mi"] if reserve else []
    with bench.container(_memory_limits(), [*_EXEC, *words, "--", *command]) as service:
        reserved = loaded(bench, service)
    level = next((one["level"] for one in told["findings"] if one["id"] == "memory-outside-go"), None)
    return {"reserve_mib": reserve, "finding": level, "whole": whole, "plain": plain, "reserved": reserved}


def explained(pid: int) -> dict[str, Any]:
    """What `cgagent explain` says of a running process."""
    words = [CGAGENT, "explain", "--pid", str(pid), "-o", "json"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailedError(f"cgagent explain: {done.stderr.strip()[-300:]}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def reserve_of(document: dict[str, Any]) -> int:
    """The reserve in MiB that the finding memory-outside-go names; 0 where there is no such finding."""
    for finding in document["findings"]:
        if finding["id"] == "memory-outside-go":
            named = re.search(r"--memory-reserve (\d+)Mi", finding["remedy"])
            if named is None:
                raise FailedError(f"no reserve in the finding: {finding}")
            return int(named[1])
    return 0


def _memory_limits() -> list[str]:
    return ["--cpus", MEMORY_CPUS, "--memory", str(plan.MEMORY_LIMIT)]
