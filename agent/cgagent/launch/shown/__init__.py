"""Another machine and another cgroup layout, shown to the command: `run --host-cpus`, `--simulate`, `--replay`."""
