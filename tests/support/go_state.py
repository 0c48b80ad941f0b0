"""runtime.gcController's bytes as Go 1.21 to 1.27 lays them out on 64 bits (runtime/mgcpacer.go)."""

from __future__ import annotations

import struct

MIB = 1 << 20
NO_LIMIT = (1 << 63) - 1
SIZE = 321

# field -> offset; int64 or uint64 but for gc_percent (int32) and test (bool)
OFFSETS = {
    "gc_percent": 0,
    "memory_limit": 8,
    "heap_minimum": 16,
    "percent_goal": 72,
    "heap_live": 104,
    "globals_scan": 144,
    "heap_marked": 152,
    "in_use": 272,
    "released": 280,
    "free": 288,
    "total_alloc": 296,
    "total_free": 304,
    "mapped_ready": 312,
    "test": 320,
}
# A program with 20 MiB of live heap that manages 30 MiB.
SOUND = {
    "gc_percent": 100,
    "memory_limit": NO_LIMIT,
    "heap_minimum": 4 * MIB,
    "percent_goal": 40 * MIB,
    "heap_live": 22 * MIB,
    "globals_scan": 2048,
    "heap_marked": 20 * MIB,
    "in_use": 24 * MIB,
    "free": 2 * MIB,
    "total_alloc": 100 * MIB,
    "total_free": 78 * MIB,
    "mapped_ready": 30 * MIB,
}


def state(**fields: int) -> bytes:
    """SOUND with some fields changed."""
    data = bytearray(SIZE)
    for name, value in (SOUND | fields).items():
        kind = {"gc_percent": "<i", "test": "<?"}.get(name, "<Q")
        struct.pack_into(kind, data, OFFSETS[name], value)
    return bytes(data)
