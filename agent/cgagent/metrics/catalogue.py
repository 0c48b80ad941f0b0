"""Every metric: its name, what it says and where the kernel says it (design section 6). Pure.

What is unlimited or unknown has no sample at all: 0, -1 and 9.2e18 would all be wrong in somebody's sum. Units are
seconds and bytes. Each section gives new objects; a family that ends up without samples is left out by the caller.
"""

from __future__ import annotations

import sys

from cgagent import __version__
from cgagent.errors import printable
from cgagent.metrics.client import CounterMetricFamily, GaugeMetricFamily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cgagent.cgroup.limits import CpuLimit, MemoryLimit
    from cgagent.metrics.client import Metric
    from cgagent.metrics.counters import Counters
    from cgagent.report.picture import Picture

    Value = float | None
    Values = Mapping[str, Value]

PREFIX = "cgagent_"


def gauge(name: str, text: str, value: Value) -> Metric:
    """A gauge with one sample, or none where `value` is None."""
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def counter(name: str, text: str, value: Value) -> Metric:
    """A counter with one sample, or none where `value` is None."""
    return CounterMetricFamily(PREFIX + name, text, value=value)


def info(name: str, text: str, labels: Mapping[str, str]) -> Metric:
    """A gauge that is always 1 and says what it has to say in its labels."""
    family = GaugeMetricFamily(PREFIX + name, text, labels=list(labels))
    family.add_metric([printable(value) for value in labels.values()], 1)
    return family


def gauges(name: str, text: str, label: str, values: Values) -> Metric:
    """A gauge with a sample for each of `values` that is known; its key is the value of `label`."""
    family = GaugeMetricFamily(PREFIX + name, text, labels=[label])
    for key, value in values.items():
        if value is not None:
            family.add_metric([printable(key)], value)
    return family


def counters(name: str, text: str, label: str, values: Values) -> Metric:
    """As `gauges`, of counters."""
    family = CounterMetricFamily(PREFIX + name, text, labels=[label])
    for key, value in values.items():
        if value is not None:
            family.add_metric([printable(key)], value)
    return family


def about() -> Iterator[Metric]:
    """What runs here."""
    labels = {"version": __version__, "python_version": sys.version.split(" ", 1)[0]}
    yield info("build_info", "The agent and the Python that runs it; always 1.", labels)


def limits(picture: Picture, _: Counters) -> Iterator[Metric]:
    """Where the process stands, and what bounds it."""
    mode = picture.limits.standing.mode
    if mode is not None:
        yield info(
            "cgroup_info", "The cgroup hierarchies mounted here: v1, v2, hybrid or none; always 1.", {"mode": mode}
        )
    yield gauges(
        "limit_defined",
        "Whether the resource has a limit (1) or none (0); absent where that is not known.",
        "resource",
        _defined(picture),
    )
    yield from _cpu_limits(picture.limits.cpu)
    yield from _memory_limits(picture.limits.memory, picture.usage.memory)
    yield gauge("pids_limit", "Tasks that the cgroup may have (pids.max).", picture.usage.pids.get("limit"))


def _cpu_limits(cpu: CpuLimit) -> Iterator[Metric]:
    yield gauge(
        "cpu_limit_cores",
        "The smallest CPU quota of the cgroup and its ancestors (v2 cpu.max, v1 cpu.cfs_quota_us/cpu.cfs_period_us).",
        _fact(cpu, cpu.cores),
    )
    yield gauge(
        "cpu_limit_wished_cores",
        "The CPU limit that is asked for (downward API); a resize may be deferred, refused or held back.",
        _wished(cpu, cpu.cores),
    )
    yield gauge(
        "cpu_allowed_cpus",
        "CPUs that the process may run on (v2 cpuset.cpus.effective, v1 cpuset.effective_cpus, and affinity).",
        len(cpu.allowed) if cpu.allowed and not cpu.foreign else None,
    )


def _memory_limits(memory: MemoryLimit, used: Values) -> Iterator[Metric]:
    yield gauge(
        "memory_limit_bytes",
        "The smallest memory limit of the cgroup and its ancestors "
        "(v2 memory.max, memory.high; v1 memory.limit_in_bytes, memory.stat hierarchical_memory_limit).",
        _fact(memory, memory.bytes),
    )
    yield gauge(
        "memory_limit_wished_bytes",
        "The memory limit that is asked for (downward API); a resize may be deferred, refused or held back.",
        _wished(memory, memory.bytes),
    )
    yield gauge(
        "memory_high_bytes",
        "Memory beyond which the kernel reclaims and slows the cgroup down (v2 memory.high).",
        used.get("high_bytes"),
    )
    yield gauge(
        "memory_swap_limit_bytes",
        "Swap that the cgroup may use (v2 memory.swap.max; v1 memory.memsw.limit_in_bytes - memory.limit_in_bytes).",
        used.get("swap_limit_bytes"),
    )


def _fact(limit: CpuLimit | MemoryLimit, number: Value) -> Value:
    """What is in force, or the best that is known of it; `number` is what is decided on."""
    if limit.wish is not None:
        return limit.wish.fact
    return number if limit.counts else None


def _wished(limit: CpuLimit | MemoryLimit, number: Value) -> Value:
    """What is asked for; what is only given, with nothing seen beside it, is no more than that."""
    if limit.wish is not None:
        return limit.wish.value
    return number if limit.foreign else None


def _defined(picture: Picture) -> Values:
    cpu, memory, pids = picture.limits.cpu, picture.limits.memory, picture.usage.pids
    defined: dict[str, Value] = {}
    if cpu.counts and not picture.limits.blocked("cpu"):
        defined["cpu"] = float(_fact(cpu, cpu.cores) is not None)
    if memory.counts and not picture.limits.blocked("memory"):
        defined["memory"] = float(_fact(memory, memory.bytes) is not None)
    if pids.get("current") is not None:
        defined["pids"] = float(pids.get("limit") is not None)
    return defined


def decision(picture: Picture, _: Counters) -> Iterator[Metric]:
    """What a Go program under these limits should run with."""
    chosen = picture.decision
    yield gauge("gomaxprocs", "The GOMAXPROCS that follows from the limits and the policy.", chosen.gomaxprocs.wanted)
    yield gauge(
        "gomemlimit_bytes", "The GOMEMLIMIT that follows from the limits and the policy.", chosen.gomemlimit.value
    )


def cpu(picture: Picture, _: Counters) -> Iterator[Metric]:
    """CPU time used and withheld."""
    used, throttled = picture.usage.cpu, picture.usage.throttling
    yield counter(
        "cpu_usage_seconds_total",
        "CPU time used (v2 cpu.stat usage_usec, v1 cpuacct.usage).",
        used.get("usage_seconds"),
    )
    yield counter(
        "cpu_user_seconds_total",
        "CPU time used in user mode (v2 cpu.stat user_usec, v1 cpuacct.stat user).",
        used.get("user_seconds"),
    )
    yield counter(
        "cpu_system_seconds_total",
        "CPU time used in the kernel (v2 cpu.stat system_usec, v1 cpuacct.stat system).",
        used.get("system_seconds"),
    )
    yield counter(
        "cpu_cfs_periods_total",
        "Periods in which the CPU quota was in force (cpu.stat nr_periods).",
        throttled.get("periods"),
    )
    yield counter(
        "cpu_cfs_throttled_periods_total",
        "Periods in which the CPU quota ran out (cpu.stat nr_throttled).",
        throttled.get("throttled_periods"),
    )
    yield counter(
        "cpu_cfs_throttled_seconds_total",
        "Time for which the CPU quota held tasks up (v2 cpu.stat throttled_usec, v1 cpu.stat throttled_time).",
        throttled.get("throttled_seconds"),
    )


def memory(picture: Picture, counted: Counters) -> Iterator[Metric]:
    """Memory used, and what happened at its limits."""
    used = picture.usage.memory
    yield gauge(
        "memory_usage_bytes",
        "Memory charged to the cgroup, page cache included (v2 memory.current, v1 memory.usage_in_bytes).",
        used.get("usage_bytes"),
    )
    yield gauge(
        "memory_working_set_bytes",
        "Memory without the inactive page cache (v2 memory.current - memory.stat inactive_file, "
        "v1 memory.usage_in_bytes - memory.stat total_inactive_file).",
        used.get("working_set_bytes"),
    )
    yield gauge(
        "memory_peak_bytes",
        "The most memory ever charged (v2 memory.peak, v1 memory.max_usage_in_bytes).",
        used.get("peak_bytes"),
    )
    # An event that the kernel does not tell of just now is absent: what came before alone would look like a reset.
    before = counted.memory_events_before
    yield counters(
        "memory_events_total",
        "Events at the memory limits (v2 memory.events; v1 memory.failcnt as max, memory.oom_control oom_kill).",
        "event",
        {event: count + before.get(event, 0) for event, count in picture.usage.memory_events.items()},
    )


def pressure(picture: Picture, _: Counters) -> Iterator[Metric]:
    """Time lost for want of a resource, where the kernel keeps pressure stall information."""
    waits = picture.usage.pressure
    yield counters(
        "pressure_waiting_seconds_total",
        "Time in which some task waited for the resource (cpu.pressure, memory.pressure, io.pressure: some total).",
        "resource",
        {resource: wait.get("some_seconds") for resource, wait in waits.items()},
    )
    yield counters(
        "pressure_stalled_seconds_total",
        "Time in which all tasks waited for the resource (cpu.pressure, memory.pressure, io.pressure: full total).",
        "resource",
        {resource: wait.get("full_seconds") for resource, wait in waits.items()},
    )


def pids(picture: Picture, _: Counters) -> Iterator[Metric]:
    """Tasks."""
    yield gauge(
        "pids_current", "Tasks in the cgroup, threads included (pids.current).", picture.usage.pids.get("current")
    )


def go(picture: Picture, _: Counters) -> Iterator[Metric]:
    """What the target's Go runtime holds, read from its memory; nothing where it is no Go program that may be read."""
    running = picture.running
    if running is None:
        return
    yield info("go_info", "The Go release that built the target's program; always 1.", {"version": running.go_version})
    yield gauge(
        "go_gomaxprocs", "GOMAXPROCS in force (as client_golang's go_sched_gomaxprocs_threads).", running.gomaxprocs
    )
    yield gauge(
        "go_gomemlimit_bytes",
        "GOMEMLIMIT in force; absent where it is off (as client_golang's go_gc_gomemlimit_bytes).",
        running.memory_limit,
    )
    yield gauge(
        "go_gogc_percent",
        "GOGC in force; absent where it is off (as client_golang's go_gc_gogc_percent).",
        running.gogc,
    )
    yield gauge(
        "go_heap_live_bytes",
        "Heap that the last GC cycle found to be live (as client_golang's go_gc_heap_live_bytes).",
        running.heap_live,
    )
    yield gauge(
        "go_memory_managed_bytes",
        "Memory that Go manages and holds against GOMEMLIMIT (runtime.gcController.mappedReady).",
        running.managed,
    )
    yield counter("go_gc_cycles_total", "GC cycles that have started (runtime.work.cycles).", running.gc_cycles)
    yield counter(
        "go_gc_cpu_seconds_total",
        "CPU time of GC, counted when a cycle ends (as client_golang's go_cpu_classes_gc_total_cpu_seconds_total).",
        running.gc_cpu_seconds,
    )
    yield counter(
        "go_cpu_seconds_total",
        "CPU time that GOMAXPROCS allows, counted when a cycle ends (go_cpu_classes_total_cpu_seconds_total).",
        running.cpu_seconds,
    )


def agent(counted: Counters) -> Iterator[Metric]:
    """What the agent did itself."""
    changes = {"cpu": 0, "memory": 0} | counted.limit_changes
    failures = dict.fromkeys(counted.hook_runs, 0) | counted.hook_failures
    reloaded = counted.config_last_reload_successful
    yield counters("limit_changes_total", "Changes of a limit that the agent saw.", "resource", changes)
    yield counter("env_file_writes_total", "Times that the env file was written.", counted.env_file_writes)
    yield counter(
        "env_file_write_failures_total", "Times that writing the env file failed.", counted.env_file_write_failures
    )
    yield gauge(
        "env_file_last_write_timestamp_seconds", "When the env file was last written.", counted.env_file_last_write
    )
    yield counters("hook_runs_total", "Times that the hook was run.", "hook", dict(counted.hook_runs))
    yield counters("hook_failures_total", "Times that the hook failed or ran out of time.", "hook", failures)
    yield counter(
        "pod_status_requests_total",
        "Times that the API server was asked whether a raised limit is granted.",
        counted.pod_status_requests,
    )
    yield counter(
        "pod_status_request_failures_total",
        "Times that the API server did not say whether a raised limit is granted.",
        counted.pod_status_request_failures,
    )
    yield gauge(
        "config_last_reload_successful",
        "Whether the config file could be used when it was last read.",
        None if reloaded is None else float(reloaded),
    )
    yield gauge(
        "config_last_reload_success_timestamp_seconds",
        "When the config file was last read with success.",
        counted.config_last_reload,
    )
    yield counters(
        "read_errors_total", "Times that a file could not be read or understood.", "file", dict(counted.read_errors)
    )


# What is told of a process. A section more is a section more here.
SECTIONS: tuple[Callable[[Picture, Counters], Iterator[Metric]], ...] = (
    limits,
    decision,
    cpu,
    memory,
    pressure,
    pids,
    go,
)
