"""Terminals: one of its own with --tty, the caller's without; restored whatever happens."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

import pytest

from launch.behaviour import CGAGENT, needs_root, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = needs_root


class Terminal:
    """A terminal with a person at it, and a program that it controls."""

    def __init__(self, *words: str, rows: int = 33, columns: int = 101) -> None:
        self.person, self.line = os.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.line)
        self.seen = ""
        self.process = subprocess.Popen(
            words, stdin=self.line, stdout=self.line, stderr=self.line, start_new_session=True, preexec_fn=self._control
        )

    def _control(self) -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
            signal.signal(number, signal.SIG_DFL)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.line, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.person, text.encode())

    def read_until(self, pattern: str) -> str:
        """All output so far, once it holds `pattern`."""
        end = time.monotonic() + 60
        while not re.search(pattern, self.seen):
            if time.monotonic() > end:
                pytest.fail(f"{pattern!r} did not appear in {self.seen!r}")
            if select.select([self.person], [], [], 0.1)[0]:
                self.seen += os.read(self.person, 65536).decode(errors="replace")
        return self.seen

    def end(self) -> int:
        """The exit code."""
        try:
            return self.process.wait(timeout=60)
        finally:
            self.process.kill()

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self.line) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.person)
        os.close(self.line)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(options: str, command: str) -> Terminal:
        made.append(Terminal(CGAGENT, "run", *options.split(), "--", "sh", "-c", command))
        return made[-1]

    yield make
    for each in made:
        each.close()


# Waits for an interrupt, and a moment longer for one too many.
COUNTED = "n=0; trap 'n=$((n+1))' INT; echo ready; until [ $n -gt 0 ]; do sleep 0.1; done; sleep 0.3; echo times $n"


class TestOwnTerminal:
    def test_is_the_first_of_the_containers_own(self, terminal: Callable[..., Terminal]) -> None:
        seen = terminal("--tty", "tty; test -t 0 && test -t 1 && test -t 2 && echo all").read_until("all")
        assert "/dev/pts/0" in seen or "/dev/console" in seen

    def test_has_the_callers_size(self, terminal: Callable[..., Terminal]) -> None:
        assert "33 101" in terminal("--tty", "stty size; echo .").read_until(r"\.")

    def test_follows_a_change_of_size(self, terminal: Callable[..., Terminal]) -> None:
        shown = terminal("--tty", "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done")
        shown.read_until("ready")
        shown.resize(20, 40)
        assert "20 40" in shown.read_until("20 40")
        assert shown.end() == 0

    def test_is_a_controlling_terminal(self, terminal: Callable[..., Terminal]) -> None:
        terminal("--tty", "echo to the terminal > /dev/tty").read_until("to the terminal")

    def test_a_typed_interrupt_reaches_the_command_once(self, terminal: Callable[..., Terminal]) -> None:
        shown = terminal("--tty", COUNTED)
        shown.read_until("ready")
        shown.type("\x03")
        assert "times 1" in shown.read_until(r"times \d")

    def test_a_typed_interrupt_ends_a_command_without_a_handler(self, terminal: Callable[..., Terminal]) -> None:
        shown = terminal("--tty", "echo ready; exec sleep 1000")
        shown.read_until("ready")
        shown.type("\x03")
        assert shown.end() == 130

    def test_typed_text_and_its_end_reach_the_command(self, terminal: Callable[..., Terminal]) -> None:
        shown = terminal("--tty", "echo ready; cat > /dev/null; echo over")
        shown.read_until("ready")
        shown.type("some text\n\x04")
        shown.read_until("over")
        assert shown.end() == 0

    def test_the_exit_code_is_the_commands(self, terminal: Callable[..., Terminal]) -> None:
        assert terminal("--tty", "exit 42").end() == 42

    def test_all_output_arrives_before_the_end(self, terminal: Callable[..., Terminal]) -> None:
        shown = terminal("--tty", "seq 20000")
        assert "20000" in shown.read_until(r"\b20000\b")
        assert shown.end() == 0

    def test_needs_no_terminal_of_the_callers(self) -> None:
        done = run(["--tty"], "sh", "-c", "tty; echo over")
        assert (done.code, done.stdout.splitlines()[-1].strip()) == (0, "over")

    def test_belongs_to_the_user(self, terminal: Callable[..., Terminal]) -> None:
        assert "1000" in terminal("--tty --user 1000:1000", "stat -L -c 'owner %u' /proc/self/fd/0").read_until(
            r"owner 1000"
        )


class TestTheCallersTerminal:
    @pytest.mark.parametrize("command", ["exit 0", "exit 3", "kill -9 $$"])
    def test_is_as_before_when_the_command_has_ended(self, command: str, terminal: Callable[..., Terminal]) -> None:
        shown = terminal("--tty", command)
        shown.end()
        assert shown.is_as_before()

    @pytest.mark.parametrize("name", ["TERM", "HUP", "INT", "QUIT", "KILL"])
    def test_is_as_before_when_the_launcher_was_ended(self, name: str, terminal: Callable[..., Terminal]) -> None:
        shown = terminal("--tty", "echo ready; exec sleep 1000")
        shown.read_until("ready")
        # Raw by now: what is typed goes to the container's terminal.
        assert not shown.is_as_before()
        shown.process.send_signal(getattr(signal, f"SIG{name}"))
        shown.end()
        # After a SIGKILL somebody else puts it right, a moment later.
        for _ in range(1200):
            if shown.is_as_before():
                return
            time.sleep(0.05)
        pytest.fail("the terminal is still raw")

    @pytest.mark.parametrize("options", ["--workdir /proc/nowhere", "--rootfs /nowhere", "--rootfs /etc/passwd"])
    def test_is_as_before_when_the_container_could_not_be_set_up(
        self, options: str, terminal: Callable[..., Terminal]
    ) -> None:
        shown = terminal(f"--tty {options}", "true")
        assert shown.end() == 125
        assert shown.is_as_before()

    def test_without_the_option_is_the_commands_own(self, terminal: Callable[..., Terminal]) -> None:
        shown = terminal("", "test -t 0 && test -t 1 && echo terminal; exit 5")
        shown.read_until("terminal")
        assert shown.end() == 5

    def test_without_the_option_a_typed_interrupt_reaches_the_command_once(
        self, terminal: Callable[..., Terminal]
    ) -> None:
        shown = terminal("", COUNTED)
        shown.read_until("ready")
        shown.type("\x03")
        assert "times 1" in shown.read_until(r"times \d")

    def test_without_the_option_a_typed_stop_stops_and_a_continue_goes_on(
        self, terminal: Callable[..., Terminal]
    ) -> None:
        shown = terminal("", "echo ready; while :; do sleep 0.05; echo tick; done")
        shown.read_until("tick")
        shown.type("\x1a")
        # Kernel: an orphaned process group is not stopped by its terminal; here the shell is missing.
        time.sleep(0.3)
        os.killpg(shown.process.pid, signal.SIGCONT)
        shown.seen = ""
        shown.read_until("tick")
        os.killpg(shown.process.pid, signal.SIGKILL)
