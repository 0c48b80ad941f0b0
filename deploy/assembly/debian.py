"""Debian's packages: downloaded by apt, which checks their signatures, and unpacked beside the machine's own files."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from urllib.parse import unquote

RELEASE = "bookworm"


class AssemblyError(Exception):
    """What can't be had or made here, in one line with how to mend it."""


def cache() -> str:
    """Where downloads are kept, outside the checkout."""
    return os.environ.get("CGAGENT_BUILD_CACHE") or os.path.expanduser("~/.cache/cgagent-build")


def output(words: list[str], **options: object) -> str:
    """What a command prints.

    Raises:
        AssemblyError: it is not there, or fails: with the last line that it said.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    except FileNotFoundError:
        raise AssemblyError(
            f"{words[0]} is not installed: on Debian, apt-get install {_package_of(words[0])}"
        ) from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        told = next((line for line in said if "error" in line.lower()), said[-1])
        raise AssemblyError(f"{' '.join(words[:3])} … ended with {done.returncode}: {told}")
    return str(done.stdout)


def _package_of(command: str) -> str:
    return {
        "gcc": "gcc libc6-dev",
        "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
        "strip": "binutils",
    }.get(command, command)


def machine() -> str:
    """The architecture that we run on, in Debian's words."""
    return output(["dpkg", "--print-architecture"]).strip()


def unpacked(names: tuple[str, ...], architecture: str) -> tuple[str, list[str]]:
    """A directory that holds the files of the packages `names`, and `name version` of each.

    Raises:
        AssemblyError: a package can't be had.
    """
    downloads = os.path.join(cache(), "debian")
    os.makedirs(downloads, exist_ok=True)
    options = [] if architecture == machine() else _foreign(architecture)
    archives = [_download(line, downloads) for line in _candidates(names, options)]
    key = hashlib.sha256("\n".join(sorted(archives)).encode()).hexdigest()[:16]
    root = os.path.join(cache(), "roots", f"{architecture}-{key}")
    if not os.path.isdir(root):
        temporary = f"{root}.{os.getpid()}"
        os.makedirs(temporary)
        for archive in archives:
            output(["dpkg-deb", "-x", archive, temporary])
        try:
            os.rename(temporary, root)
        except OSError:  # another build was first
            shutil.rmtree(temporary)
    return root, sorted(_told(archive) for archive in archives)


def _candidates(names: tuple[str, ...], options: list[str]) -> list[str]:
    """Lines of apt: URI, file name, size, hash."""
    try:
        lines = output(["apt-get", *options, "download", "--print-uris", *names]).splitlines()
    except AssemblyError as error:
        raise AssemblyError(f"{error}: run apt-get update; the build needs Debian {RELEASE}'s Python 3.11") from None
    return [line for line in lines if line.startswith("'")]


def _download(line: str, downloads: str) -> str:
    """The archive that `line` of apt names, fetched if it is not there yet, its hash checked."""
    uri, name, _, checksum = line.split()
    path = os.path.join(downloads, unquote(name))
    method, _, wanted = checksum.partition(":")
    if method != "SHA256":
        raise AssemblyError(f"{name}: apt names no SHA256 of it, but {method}")
    if not os.path.exists(path) or _sha256(path) != wanted:
        temporary = f"{path}.{os.getpid()}"
        helper = ["/usr/lib/apt/apt-helper", "download-file", uri.strip("'"), temporary, f"SHA256:{wanted}"]
        output(helper, cwd=downloads)
        os.rename(temporary, path)
    return path


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _told(archive: str) -> str:
    name, version, _ = os.path.basename(archive).split("_")
    return f"{name} {unquote(version)}"


def _foreign(architecture: str) -> list[str]:
    """apt's options to look at another architecture's packages, in lists of our own."""
    state = os.path.join(cache(), f"apt-{architecture}")
    for part in ("lists/partial", "archives/partial"):
        os.makedirs(os.path.join(state, part), exist_ok=True)
    options = []
    for setting in (
        f"APT::Architecture={architecture}",
        f"APT::Architectures::={architecture}",
        f"Dir::State::lists={state}/lists",
        "Dir::State::status=/dev/null",
        f"Dir::Cache={state}",
        f"Dir::Etc::sourceparts={_debian_sources(state)}",
        "Dir::Etc::sourcelist=/dev/null",
        "APT::Sandbox::User=",
    ):
        options += ["-o", setting]
    if not any(name.endswith("Packages") or "Packages." in name for name in os.listdir(f"{state}/lists")):
        sys.stderr.write(f"apt: lists of {architecture}\n")
        output(["apt-get", *options, "update"])
    return options


def _debian_sources(state: str) -> str:
    """A directory with those of the machine's sources that are Debian's: the others may not have `architecture`."""
    directory = os.path.join(state, "sources")
    os.makedirs(directory, exist_ok=True)
    candidates = [f"/etc/apt/sources.list.d/{name}" for name in sorted(os.listdir("/etc/apt/sources.list.d"))]
    for path in ["/etc/apt/sources.list", *candidates]:
        if not os.path.isfile(path):
            continue
        with open(path) as file:
            text = file.read()
        if "debian-archive-keyring" in text or "debian" in os.path.basename(path):
            shutil.copy(path, directory)
        elif path.endswith(".list"):
            lines = [line for line in text.splitlines() if line.startswith("deb") and f" {RELEASE}" in line]
            lines = [line for line in lines if "/debian" in line]
            with open(os.path.join(directory, os.path.basename(path)), "w") as file:
                file.write("".join(f"{line}\n" for line in lines))
    return directory
