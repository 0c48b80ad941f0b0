"""Whether it matters: a real Go service under real limits, with what cgagent sets and without it.

`make proof` runs everything and writes build/proof: results.json, proof.md, proof.png. `make proof QUICK=1` is a look
at a few cases, `make proof README=1` also puts the tables and the picture into the README.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
import time

from golang.toolchain import UnavailableError
from kernel.cgroups import mode
from proof import following, plan, readme, trials
from proof.container import EndedError, FailedError
from proof.programs import program
from proof.results import SCHEMA, Results

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proof.plan import Trial

ROOT = os.path.abspath(f"{os.path.dirname(__file__)}/../..")
BUILD = f"{ROOT}/build/proof"
PAGE = f"{ROOT}/tests/proof/RESULTS.md"
PICTURE = f"{ROOT}/tests/proof/proof.png"
KINDS = {
    "cpu": trials.cpu,
    "memory": trials.memory,
    "beside": trials.beside,
    "following": following.following,
}
_IDLE = 0.1  # CPUs that others may keep busy without a word
_TICK = os.sysconf("SC_CLK_TCK")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make proof", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cases, once each")
    parser.add_argument(
        "--minutes", type=float, default=14.5, help="begin no trial that would end later (default 14.5)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order")
    parser.add_argument("--output", default=BUILD, help="directory for the results (default build/proof)")
    parser.add_argument("--from", dest="source", metavar="FILE", help="show the results of an earlier run")
    parser.add_argument("--update-readme", action="store_true", help="write them into README.md and beside the driver")
    parser.add_argument("--no-picture", action="store_true", help="do without matplotlib")
    return parser.parse_args()


def refusal(asked: argparse.Namespace) -> str | None:
    """Why this can't be done here or is not meant; None if it can."""
    if not asked.no_picture and not all(importlib.util.find_spec(name) for name in ("matplotlib", "PIL")):
        return "matplotlib and pillow are missing: pip install '.[picture]', or --no-picture"
    if asked.update_readme and (asked.quick or asked.no_picture):
        return "the README takes a full run with its picture: leave out --quick and --no-picture"
    if asked.source is not None:
        return None
    if os.geteuid() != 0:
        return "needs root, to limit and to resize cgroups"
    if len(os.sched_getaffinity(0)) < 2:
        return "needs two CPUs: one more than the load generator's"
    return None


def cpu_ticks() -> tuple[int, int]:
    """Ticks that all CPUs were busy, and those of them that were this process's and its children's."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(field) for field in file.readline().split()[1:9]]
    user, nice, system, _, _, interrupt, soft, steal = fields
    return user + nice + system + interrupt + soft + steal, round(sum(os.times()[:4]) * _TICK)


def carry_out(bench: trials.Bench, trial: Trial) -> dict[str, Any]:
    """The trial's result; one that fails is tried once more, for what else runs here may have ended it."""
    made = attempt(bench, trial)
    if "failed" in made:
        say(f"again, for it failed: {made['failed']}")
        made = attempt(bench, trial)
    return made


def attempt(bench: trials.Bench, trial: Trial) -> dict[str, Any]:
    """The trial with what it measured, or why it failed, and what else the machine did meanwhile."""
    start, before = time.monotonic(), cpu_ticks()
    made: dict[str, Any] = trial.document()
    try:
        made["measured"] = KINDS[trial.kind](bench, trial.case)
    except (EndedError, FailedError, UnavailableError, OSError, ValueError, KeyError, RuntimeError) as error:
        made["failed"] = str(error) or type(error).__name__
    made["took"] = time.monotonic() - start
    made["other_cpus"] = other_cpus(before, made["took"])
    return made


def other_cpus(before: tuple[int, int], seconds: float) -> float:
    """How many CPUs others have kept busy since `before`."""
    after = cpu_ticks()
    return max(0.0, (after[0] - before[0] - after[1] + before[1]) / _TICK / seconds)


def warn_if_busy() -> None:
    """Say so where a look at the machine shows that its figures won't be worth much."""
    before = cpu_ticks()
    time.sleep(1)
    busy = other_cpus(before, 1)
    if busy > _IDLE:
        say(f"the machine is busy: other work takes {busy:.2f} CPUs, and the figures will show it")


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Run the plan; the document of results."""
    say("building the service and the load generator")
    for version in (plan.OLD, plan.NEW):
        program("service", version)
    program("service", plan.NEW, cgo=True)
    program("load", plan.NEW)
    to_do = plan.trials(asked.quick, asked.seed)
    total = sum(trial.seconds for trial in to_do)
    say(f"{len(to_do)} trials, about {clock(total)} minutes; stops after {asked.minutes:g}")
    warn_if_busy()
    start = time.monotonic()
    place = tempfile.mkdtemp(prefix="cgagent-test-proof-")
    done: list[dict[str, Any]] = []
    try:
        bench = trials.Bench(place, plan.QUICK if asked.quick else plan.FULL)
        bench.calibrate()
        say(f"one CPU serves {bench.one_cpu:.0f} requests/s")
        for number, trial in enumerate(to_do):
            passed = time.monotonic() - start
            if passed + trial.seconds > asked.minutes * 60:
                say(f"{asked.minutes:g} minutes are over: {len(to_do) - number} trials are left out")
                break
            done.append(carry_out(bench, trial))
            say(f"[{number + 1}/{len(to_do)} {clock(passed)} of {clock(total)}] {trial}: {brief(done[-1])}")
    except KeyboardInterrupt:
        if not done:
            raise
        say("interrupted: what follows is of the trials so far")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return {
        "schema": SCHEMA,
        "when": time.strftime("%Y-%m-%d"),
        "quick": asked.quick,
        "took_seconds": time.monotonic() - start,
        "machine": machine(),
        "one_cpu": bench.one_cpu,
        "left_out": len(to_do) - len(done),
        "trials": done,
    }


def brief(done: dict[str, Any]) -> str:
    """A trial's outcome in a few words, for whoever watches."""
    if "failed" in done:
        return f"FAILED: {done['failed']}"
    measured = done["measured"]
    text = f"{done['took']:.1f} s"
    if done["kind"] == "cpu":
        text += f", {measured['closed']['per_second']:.0f}/s, p99 {measured['open']['p99_seconds'] * 1e3:.1f} ms"
    elif done["kind"] == "beside":
        fates = ["killed" if measured[name]["killed"] else "lives" for name in ("whole", "plain", "reserved")]
        text += f", {fates[0]}; at 90% {fates[1]}; with a reserve of {measured['reserve_mib']} MiB {fates[2]}"
    else:
        text += ", killed" if measured["killed"] else ", lives"
    return f"{text}, other work {done['other_cpus']:.2f} CPUs"


def machine() -> dict[str, Any]:
    """What it was measured on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
    kernel = platform.release().partition("-")[0]
    return {"cpus": len(os.sched_getaffinity(0)), "model": model, "kernel": kernel, "cgroups": mode()}


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def show(document: dict[str, Any], asked: argparse.Namespace) -> None:
    """Write page and picture; the README if that is asked."""
    results = Results(document)
    page = readme.page(results)
    write(f"{asked.output}/proof.md", page)
    if not asked.no_picture:
        from proof.picture import draw

        draw(results, f"{asked.output}/proof.png")
    if asked.update_readme:
        with open(f"{ROOT}/README.md", encoding="utf-8") as file:
            text = file.read()
        write(f"{ROOT}/README.md", readme.replaced(text, readme.block(results)))
        write(PAGE, page)
        shutil.copyfile(f"{asked.output}/proof.png", PICTURE)
        say(f"wrote README.md, {PAGE}, {PICTURE}")
    print(page)


def main() -> int:
    """Measure, or read what was measured, and show it; 1 if a trial gave no result."""
    asked = arguments()
    why = refusal(asked)
    if why is not None:
        say(f"make proof: {why}")
        return 2
    os.makedirs(asked.output, exist_ok=True)
    if asked.source is None:
        try:
            document = measure(asked)
        except (EndedError, FailedError, UnavailableError) as error:
            say(f"make proof: {error}")
            return 1
        if not document["trials"]:
            say(f"make proof: {asked.minutes:g} minutes are too short for any trial")
            return 1
        write(f"{asked.output}/results.json", json.dumps(document, indent=1) + "\n")
    else:
        try:
            with open(asked.source, encoding="utf-8") as file:
                document = json.load(file)
        except (OSError, ValueError) as error:
            say(f"make proof: cannot read {asked.source}: {error}")
            return 2
        if asked.update_readme and document["quick"]:
            say("make proof: the README takes no quick look")
            return 2
    show(document, asked)
    failed = Results(document).failures()
    for line in failed:
        say(f"no result: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
