"""Captures: a process's cgroup layout, taken along in one file (`layout` says what it holds)."""

from cgagent.capture.layout import Capture, CaptureError, Meta
from cgagent.capture.source import load

__all__ = ["Capture", "CaptureError", "Meta", "load"]
