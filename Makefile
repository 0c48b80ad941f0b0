# Every target creates .venv and installs what it needs; `make help` lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cgagent needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "installing into $(VENV), once" >&2
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || { echo "no virtual environment: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@# Where PYTHONDONTWRITEBYTECODE is set, each start would compile anew: 10 ms.
	@$(BIN)/python -m compileall -q agent
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.PHONY: run
run: $(VENV)/.run ## the main job: explain, write an env file, start a program with it
	@deploy/demo $(BIN)/cgagent

.PHONY: test
test: $(VENV)/.dev ## the default tests
	pytest

.PHONY: test-kernel-v1 test-kernel-v2
test-kernel-v1: $(VENV)/.dev ## real cgroups v1, here or in an emulated machine; needs root
	tests/machine/tier v1
test-kernel-v2: $(VENV)/.dev ## real cgroups v2, here or in an emulated machine; needs root
	tests/machine/tier v2

.PHONY: test-watch test-watch-v2
test-watch: $(VENV)/.dev ## the sidecar on real cgroups: nothing lost to signals, full disks and restarts; needs root
	pytest -p no:cacheprovider tests/watch
test-watch-v2: $(VENV)/.dev ## the same and the metrics' values on cgroup v2, in an emulated machine; needs root
	tests/machine/boot v2 $(CURDIR)/$(BIN)/python -m pytest -p no:cacheprovider tests/watch tests/prometheus/test_values.py

.PHONY: test-launch test-launch-v2 test-prometheus test-live test-go-module test-go-matrix
test-launch: $(VENV)/.dev ## the launcher: real namespaces and cgroups, beside runc; needs root
	tests/machine/packages runc strace iproute2 nftables busybox-static uidmap linux-libc-dev e2fsprogs
	pytest -p no:cacheprovider tests/launch
test-launch-v2: $(VENV)/.dev ## the same in an emulated machine with cgroup v2 alone, and systemd; 25 minutes; needs root
	tests/machine/packages runc strace iproute2 nftables busybox-static uidmap systemd dbus linux-libc-dev e2fsprogs
	PYTHONPATH=tests $(BIN)/python -m launch.onlookers
	BOOT_TIMEOUT=5400 tests/machine/boot v2 $(BIN)/python -m pytest -p no:cacheprovider tests/launch -rs
test-prometheus: $(VENV)/.dev ## the sidecar under a real Prometheus and a real browser, the dashboard by Grafana's libraries (npm); needs root
	tests/machine/packages prometheus chromium
	pytest -p no:cacheprovider tests/prometheus
test-live: $(VENV)/.dev ## reading and retuning Go programs of every release from 1.21 to 1.27
	tests/machine/packages gccgo qemu-user
	pytest -p no:cacheprovider tests/live
test-go-module: $(VENV)/.dev ## the Go module: every conformance case, and real cgroups
	pytest -p no:cacheprovider tests/gomodule
test-go-matrix: $(VENV)/.dev ## build info and predictions against every Go from 1.21 to 1.27
	pytest -p no:cacheprovider tests/golang_matrix

.PHONY: bundle image test-deploy
bundle: $(VENV)/.run ## build/cgagent-bundle-amd64.tar: one static program for images without libc, shell or Python
	$(BIN)/python deploy/bundle --arch amd64 --table
image: $(VENV)/.run ## build/cgagent-image.tar: an OCI archive for docker load and ctr images import
	$(BIN)/python deploy/image --arch amd64 --table
test-deploy: $(VENV)/.dev ## bundle, image, Compose file and systemd units in a Docker engine of the tests' own; needs root
	pytest tests/deploy tests/sample

.PHONY: test-kubernetes test-kubernetes-quick test-kubernetes-v2 session
NODE := runc containernetworking-plugins iproute2 iptables conntrack openssl curl busybox-static
test-kubernetes: $(VENV)/.dev image ## a real node of Kubernetes, built from Go modules the first time (15 minutes); needs root
	tests/machine/packages $(NODE)
	pytest -p no:cacheprovider tests/kube tests/kubernetes
test-kubernetes-quick: $(VENV)/.dev image ## a smaller choice, if the node can be had within MINUTES (35): else it says why not; needs root
	tests/kubernetes/quick $(or $(MINUTES),35)
session: $(VENV)/.dev image ## the session on a node that README.md shows, had again and written there; needs root
	tests/machine/packages $(NODE)
	CGAGENT_UPDATE_README=1 pytest -p no:cacheprovider tests/kubernetes/test_session.py
test-kubernetes-v2: $(VENV)/.dev image ## a smaller choice, on a node with cgroup v2 alone in an emulated machine; needs root
	tests/machine/packages $(NODE) qemu-system-x86 linux-image-amd64 kmod
	PYTHONPATH=tests $(BIN)/python -m sample.build 1.24.11 1.27.3
	tests/kubernetes/cluster v2 tests/kubernetes/on_v2

.PHONY: bench
bench: $(VENV)/.dev ## what it costs, as ratios to a baseline of the same run
	$(BIN)/python -m compileall -q agent
	python tests/bench/bench_start.py
	python tests/bench/bench_growth.py
	python tests/bench/bench_watch.py
	python tests/bench/bench_metrics.py
	python tests/bench/bench_run.py
	python tests/bench/bench_host_cpus.py
	python tests/bench/bench_live.py
	python tests/bench/bench_webhook.py

$(VENV)/.picture: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[picture]'
	@touch $@

.PHONY: proof test-proof
proof: $(VENV)/.picture ## a Go service under limits with and without cgagent; QUICK=1: a look, README=1: into the README; needs root
	PYTHONPATH=tests python -m proof $(if $(QUICK),--quick) $(if $(README),--update-readme)
test-proof: $(VENV)/.picture ## the proof itself, its quick look from end to end; needs root
	pytest -p no:cacheprovider tests/proof

.PHONY: gallery
gallery: $(VENV)/.dev ## GALLERY.md: what Go, automaxprocs and automemlimit make of each captured layout, really run
	PYTHONPATH=tests python tests/gallery/table.py

.PHONY: lint
lint: $(VENV)/.dev ## ruff and mypy --strict
	ruff check
	ruff format --check
	mypy

.PHONY: clean
clean: ## remove what the targets made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
