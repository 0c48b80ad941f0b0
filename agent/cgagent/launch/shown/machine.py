"""The files in which a machine tells of its CPUs and memory, for a machine that we are not on. Pure.

Each is made from the real one's text, so that what is not about the number of CPUs stays true. Sources: proc(5),
Documentation/ABI/testing/sysfs-devices-system-cpu, Documentation/admin-guide/cputopology.rst.
"""

from __future__ import annotations

_PER_CPU = ("processor", "core id", "apicid", "initial apicid")
_ALL_CPUS = ("siblings", "cpu cores")
CPUSET_FILES = ("cpuset.cpus", "cpuset.cpus.effective", "cpuset.effective_cpus")
# Lines of /proc/meminfo that don't grow and shrink with the machine's memory.
_FIXED = ("Swap", "Vmalloc", "HugePages_", "Hugepagesize", "Hugetlb", "Zswap", "DirectMap", "Percpu")


def cpu_list(cpus: int) -> str:
    """All of `cpus` CPUs in the kernel's list format."""
    return f"0-{cpus - 1}" if cpus > 1 else "0"


def cpu_mask(mask: int, cpus: int) -> str:
    """A mask as sysfs writes it: words of 32 bits in hex, the highest first, as wide as `cpus` CPUs need."""
    digits = f"{mask:0{-(-cpus // 32) * 8}x}"
    words = [digits[at : at + 8] for at in range(0, len(digits), 8)]
    words[0] = words[0][8 - -(-((cpus - 1) % 32 + 1) // 4) :]
    return ",".join(words)


def cpuinfo(real: str, cpus: int) -> str:
    """/proc/cpuinfo: the first CPU's paragraph for each, in one package."""
    paragraphs = [text for text in real.split("\n\n") if text.strip()]
    sample = next((text for text in paragraphs if text.startswith("processor")), "processor\t: 0")
    rest = [text for text in paragraphs if not text.startswith("processor")]
    every = [_cpuinfo_of(sample, number, cpus) for number in range(cpus)]
    return "".join(f"{text}\n\n" for text in (*every, *rest))


def _cpuinfo_of(sample: str, number: int, cpus: int) -> str:
    lines = []
    for line in sample.strip("\n").split("\n"):
        name, colon, value = line.partition(":")
        key = name.strip()
        if key in _PER_CPU:
            value = f" {number}"
        elif key in _ALL_CPUS:
            value = f" {cpus}"
        elif key == "physical id":
            value = " 0"
        lines.append(f"{name}{colon}{value}")
    return "\n".join(lines)


def stat(real: str, cpus: int) -> str:
    """/proc/stat: the lines of CPUs that are not there say that they were idle, as long as the first one lived."""
    lines = real.split("\n")
    found = {}
    for line in lines:
        name = line.split(" ", 1)[0]
        if name.startswith("cpu") and name[3:].isdigit():
            found[int(name[3:])] = [int(word) for word in line.split()[1:] if word.isdigit()]
    width = max((len(numbers) for numbers in found.values()), default=10)
    lived = sum(found.get(0, [0]))
    idle = [lived if place == 3 else 0 for place in range(width)]
    every = [found.get(number, idle) for number in range(cpus)]
    total = " ".join(str(sum(column)) for column in zip(*every, strict=False))
    each = [f"cpu{number} {' '.join(str(one) for one in numbers)}" for number, numbers in enumerate(every)]
    return "\n".join([f"cpu  {total}", *each, *(line for line in lines if not line.startswith("cpu"))])


def meminfo(real: str, total: int) -> str:
    """/proc/meminfo of a machine of `total` bytes: less memory scales what is in use, more is free memory."""
    wanted = total // 1024
    had = next((_kib(line) for line in real.split("\n") if line.startswith("MemTotal:")), 0) or wanted
    lines = []
    for line in real.split("\n"):
        name, colon, _ = line.partition(":")
        if colon and not name.startswith(_FIXED):
            value = _kib(line)
            if wanted < had:
                value = value * wanted // had
            elif name in ("MemTotal", "MemFree", "MemAvailable"):
                value += wanted - had
            line = f"{name + ':':<16}{value if name != 'MemTotal' else wanted:>8} kB"
        lines.append(line)
    return "\n".join(lines) if real else f"MemTotal:       {wanted} kB\n"


def _kib(line: str) -> int:
    word = line.partition(":")[2].strip().removesuffix(" kB")
    return int(word) if word.isascii() and word.isdigit() and len(word) < 20 else 0


def meminfo_bytes(text: str) -> dict[str, int]:
    """The numbers of /proc/meminfo in bytes, by name."""
    return {line.partition(":")[0]: _kib(line) * 1024 for line in text.split("\n") if ":" in line}


def cpu_directory(cpus: int, kernel_max: str) -> dict[str, str]:
    """/sys/devices/system/cpu: relative path -> content. One package of single-threaded cores."""
    every = cpu_list(cpus)
    files = dict.fromkeys(("online", "possible", "present"), f"{every}\n")
    files |= {"offline": "\n", "isolated": "\n", "kernel_max": kernel_max}
    siblings = f"{cpu_mask((1 << cpus) - 1, cpus)}\n"
    for number in range(cpus):
        place = f"cpu{number}"
        files |= {
            f"{place}/online": "1\n",
            f"{place}/topology/core_id": f"{number}\n",
            f"{place}/topology/physical_package_id": "0\n",
            f"{place}/topology/thread_siblings": f"{cpu_mask(1 << number, cpus)}\n",
            f"{place}/topology/thread_siblings_list": f"{number}\n",
            f"{place}/topology/core_siblings": siblings,
            f"{place}/topology/core_siblings_list": f"{every}\n",
        }
    return files


def node_directory(cpus: int, memory: int) -> dict[str, str]:
    """/sys/devices/system/node: relative path -> content. One node with all CPUs and `memory` bytes."""
    files = dict.fromkeys(("online", "possible", "has_cpu", "has_memory", "has_normal_memory"), "0\n")
    return files | {
        "node0/cpulist": f"{cpu_list(cpus)}\n",
        "node0/cpumap": f"{cpu_mask((1 << cpus) - 1, cpus)}\n",
        "node0/distance": "10\n",
        "node0/meminfo": f"Node 0 MemTotal:       {memory // 1024} kB\n",
    }
