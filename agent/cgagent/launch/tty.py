"""A terminal for the command: made in the container, its other end relayed to the caller's terminal or pipes."""

from __future__ import annotations

import _socket
import fcntl
import os
import select
import time
from _struct import pack, unpack

from cgagent.launch.syscalls import bind

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn

    from cgagent.launch.channel import Channel
    from cgagent.launch.identity import User
else:
    import _signal as signal

# asm-generic/ioctls.h
TCGETS = 0x5401
TCSETS = 0x5402
TCSETSW = 0x5403
TIOCSCTTY = 0x540E
TIOCGWINSZ = 0x5413
TIOCSWINSZ = 0x5414
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431

# asm-generic/termbits.h: struct termios has four words of flags, then the line discipline and 19 characters. By
# hand, as the module `termios` is a library to load, and the bundle has none.
_SETTINGS = 36
IGNBRK, BRKINT, PARMRK, ISTRIP, INLCR, IGNCR, ICRNL, IXON = 0x1, 0x2, 0x8, 0x20, 0x40, 0x80, 0x100, 0x400
OPOST = 0x1
CSIZE, CS8, PARENB = 0x30, 0x30, 0x100
ISIG, ICANON, ECHO, ECHONL, IEXTEN = 0x1, 0x2, 0x8, 0x40, 0x8000

_END_OF_INPUT = b"\x04"
_CHUNK = 65536
_PATIENCE = 1.0  # seconds for the last output to be taken


def take_terminal(channel: Channel, user: User) -> None:
    """Make a terminal, hand its master to the launcher, and make it ours: session, stdin, stdout, stderr."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, TIOCSPTLCK, bytes(4))
    number = int.from_bytes(fcntl.ioctl(master, TIOCGPTN, bytes(4)), "little")
    path = f"/dev/pts/{number}"
    slave = os.open(path, os.O_RDWR | os.O_NOCTTY)
    os.fchown(slave, user.uid, -1)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, master.to_bytes(4, "little"))]
    channel.terminal_in.sendmsg([b"t"], rights)
    channel.terminal_in.recv(1)  # the launcher has set the window's size
    if not os.path.exists("/dev/console"):
        os.close(os.open("/dev/console", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        bind(path, "/dev/console")
    os.setsid()
    fcntl.ioctl(slave, TIOCSCTTY, 0)
    for fd in range(3):
        os.dup2(slave, fd)
    os.close(master)
    if slave > 2:
        os.close(slave)


class Terminal:
    """The launcher's end of the command's terminal.

    Attributes:
        saved: a file descriptor of the caller's terminal and its settings; None where stdin is none.
    """

    def __init__(self, channel: Channel) -> None:
        """Receive the master and remember how the caller's terminal is set."""
        self._channel = channel
        self._relay = 0
        _, ancillary, _, _ = channel.terminal.recvmsg(1, _socket.CMSG_SPACE(4))
        if not ancillary:
            raise EOFError
        self._master = int.from_bytes(ancillary[0][2][:4], "little")
        self.saved: tuple[int, bytes] | None = None
        if os.isatty(0):
            self.saved = (fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3), fcntl.ioctl(0, TCGETS, bytes(_SETTINGS)))
        self.resize()

    def begin(self) -> None:
        """Make the caller's terminal raw, start the relay between the two, and let the command go on."""
        if self.saved is not None:
            _make_raw(0)
        self._relay = os.fork()
        if self._relay == 0:
            _relay(self._master)
        try:
            self._channel.terminal.send(b"g")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the container has failed, and its report says why

    def resize(self) -> None:
        """Give the command's terminal the size of the caller's; it hears of it by SIGWINCH."""
        if self.saved is not None:
            size = fcntl.ioctl(self.saved[0], TIOCGWINSZ, bytes(8))
            fcntl.ioctl(self._master, TIOCSWINSZ, size)

    def restore(self) -> None:
        """Put the caller's terminal back as it was."""
        if self.saved is not None:
            # Not TCSETSW, which waits: the reader of the terminal may have gone with the launcher.
            fcntl.ioctl(self.saved[0], TCSETS, self.saved[1])

    def finish(self) -> None:
        """Wait until the last output is taken, then restore."""
        os.close(self._master)
        deadline = time.monotonic() + _PATIENCE
        try:
            while self._relay and os.waitpid(self._relay, os.WNOHANG)[0] == 0:
                if time.monotonic() > deadline:
                    os.kill(self._relay, signal.SIGKILL)
                time.sleep(0.001)
        except ChildProcessError:
            pass
        self.restore()


def _make_raw(fd: int) -> None:
    settings = fcntl.ioctl(fd, TCGETS, bytes(_SETTINGS))
    iflag, oflag, cflag, lflag = unpack("=4I", settings[:16])
    iflag &= ~(BRKINT | ICRNL | IGNBRK | IGNCR | INLCR | ISTRIP | IXON | PARMRK)
    oflag &= ~OPOST
    cflag = cflag & ~(CSIZE | PARENB) | CS8
    lflag &= ~(ECHO | ECHONL | ICANON | IEXTEN | ISIG)
    fcntl.ioctl(fd, TCSETSW, pack("=4I", iflag, oflag, cflag, lflag) + settings[16:])


def _relay(master: int) -> NoReturn:
    """Copy stdin to the terminal and the terminal to stdout until the last program has closed it."""
    os.set_blocking(master, False)
    to_master, to_stdout = b"", b""
    reading = True
    try:
        while True:
            poll = select.poll()
            events = (select.POLLIN if len(to_stdout) < _CHUNK else 0) | (select.POLLOUT if to_master else 0)
            poll.register(master, events)
            if reading and len(to_master) < _CHUNK:
                poll.register(0, select.POLLIN)
            if to_stdout:
                poll.register(1, select.POLLOUT)
            ready = dict(poll.poll())
            if ready.get(0):
                data = os.read(0, _CHUNK)
                reading = bool(data)
                to_master += data or _END_OF_INPUT
            if ready.get(1):
                to_stdout = to_stdout[os.write(1, to_stdout[:4096]) :]
            if ready.get(master, 0) & select.POLLOUT:
                to_master = to_master[os.write(master, to_master) :]
            if ready.get(master, 0) & (select.POLLIN | select.POLLHUP):
                to_stdout += _read_or_end(master, to_stdout)
    finally:
        os._exit(0)


def _read_or_end(master: int, rest: bytes) -> bytes:
    try:
        return os.read(master, _CHUNK)
    except BlockingIOError:
        return b""
    except OSError:
        # EIO: nobody has the terminal open any more.
        while rest:
            rest = rest[os.write(1, rest) :]
        os._exit(0)
