"""The example that `cgagent config example` prints: every key, commented out where the default is as good."""

EXAMPLE = """\
# cgagent watch --config FILE. Every key has an option and an environment twin: policy's memory_ratio is
# --memory-ratio and CGAGENT_MEMORY_RATIO. The order is option, environment, this file, default.
# The file is read again when it changes, and on SIGHUP; web, state_dir and confirm_raises need a new start.

env_file: /run/cgagent/go.env
# format: dotenv              # dotenv, docker, shell or json
# mode: 0644                  # permissions of the env file
# merge: false                # keep the other lines of an existing file

target: auto                  # SELF (our own cgroup), a PID, or auto: the application in a shared process namespace
# target_name: orders         # which process auto means, by name
# target_exe: /app/orders     # or by executable, path or name
# settle: 50ms                # wait so long for the rest of a burst of changes
# poll: 30s                   # look anyway after this time
# state_dir: /var/lib/cgagent # keep counters across restarts: limit changes, OOM kills

policy:
  memory_ratio: 0.9           # share of the memory limit that GOMEMLIMIT gets
  # memory_reserve: 64Mi      # taken off first, for memory that Go does not manage
  # memory_min: 16Mi          # a GOMEMLIMIT below this is an error
  # cpu_rounding: ceil        # ceil, floor (uber-go/automaxprocs) or go (Go >= 1.25)
  # min_procs: 1
  # max_procs: 64
  # gomaxprocs: auto          # always, never, or left to a program known to keep the same number itself
  # override: false           # decide what the environment already has
  # on_error: fail            # ignore: leave a variable out whose limit can't be known
  # require_limits: false     # end with 3 if there is no limit at the start

limits:
  # cpu_limit: 1500m          # given from outside the cgroup
  # memory_limit: 512Mi
  # limits_dir: /etc/podinfo  # a downward-API volume: what is wished, heeded where it is less
  limits_from: auto           # auto, cgroup or given
  # trust_given: false        # believe a given limit as large as the machine
  # confirm_raises: app       # take a higher one of limits_dir only when the pod's status has it for this container

hooks:                        # run in this order when the values have changed
  - name: reload
    signal: HUP               # to the target
  # - name: tell
  #   exec: [/usr/bin/logger, -t, cgagent, limits changed]
  #   timeout: 5s             # default 10s
  # - name: post
  #   http: http://127.0.0.1:8080/limits
  #   timeout: 2s
  # - name: tune
  #   tune: true              # GOMEMLIMIT of the running target: see cgagent help tune
  # - name: restart
  #   exit: 88                # last: end with it; a restartPolicyRule makes it RestartAllContainers

web:
  listen_address: ":9101"     # or a list of addresses
  # telemetry_path: /metrics
  # max_requests: 40
  # config_file: /etc/cgagent/web.yaml   # TLS and basic auth

log:
  level: info                 # debug, info, warning or error
  format: logfmt              # or json

path:
  # procfs: /host/proc        # where the machine's /proc is mounted
  # sysfs: /host/sys
  # rootfs: /host
"""
