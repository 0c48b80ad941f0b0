"""What the agent counts of itself between scrapes. Whoever does a thing counts it; the collector only reads."""

from __future__ import annotations


class Counters:
    """Plain numbers, changed by the agent's threads; a dict's keys become the label's values.

    Attributes:
        limit_changes: `cpu`, `memory`, `cpuset` or `pids` -> how often that limit changed.
        env_file_writes: how often the env file was written (its content had changed).
        env_file_write_failures: how often writing it failed.
        env_file_last_write: when it was last written, in seconds since the epoch; None: not yet.
        hook_runs: hook's name -> how often it was run.
        hook_failures: hook's name -> how often it failed or ran out of time.
        config_last_reload_successful: whether the config file could be used when last read; None: there is none.
        config_last_reload: when it was last read with success, in seconds since the epoch.
        read_errors: file's name, such as `cpu.stat` -> how often it could not be read or understood.
        pod_status_requests: how often the API server was asked for the pod's status; None: it never is.
        pod_status_request_failures: how often that failed.
        memory_events_before: `oom_kill`, ... -> what an earlier life of the agent saw, in a cgroup that is gone
            since; added to what the kernel counts.
    """

    def __init__(self) -> None:
        self.limit_changes: dict[str, int] = {}
        self.env_file_writes = 0
        self.env_file_write_failures = 0
        self.env_file_last_write: float | None = None
        self.hook_runs: dict[str, int] = {}
        self.hook_failures: dict[str, int] = {}
        self.config_last_reload_successful: bool | None = None
        self.config_last_reload: float | None = None
        self.read_errors: dict[str, int] = {}
        self.pod_status_requests: int | None = None
        self.pod_status_request_failures: int | None = None
        self.memory_events_before: dict[str, int] = {}
