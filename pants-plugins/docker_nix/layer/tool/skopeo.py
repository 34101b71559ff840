"""Running `skopeo`, the client for registries, with the access that the Pants process offers.

Credentials, proxies and certificates must not be in anything that Pants keeps or compares, so the
tool is not given them: it takes them from the process that started it (`pull/access.py` says how
they get there), and gives them to skopeo only.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from typing import Any, Callable, Dict, List, NoReturn, Optional, TypedDict

from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.skopeo_errors import RegistryError, explain, full_name, registry_of

# Where `read_access` looks: the name of a memory file among those of the parent process, or, where
# there are no such files, a file of the parent's process id in this directory.
ACCESS_NAME = "docker-nix-registry-access"
ACCESS_DIRECTORY = "/tmp/docker-nix-registry-access-{uid}"

_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin"
_DEFAULT_SECONDS, _MANIFEST_SECONDS = 600, 120
# How much longer than its own timeout skopeo may take.
_GRACE_SECONDS = 15
# The first with --retry-times for all that is used here, and with --preserve-digests.
_MINIMUM_VERSIONS = {"pull": (1, 2), "push": (1, 5)}
_INSTALL = (
    "install it (Debian, Ubuntu: `apt-get install skopeo`; Fedora: `dnf install skopeo`; "
    "macOS: `brew install skopeo`)"
)


class RegistryAccess(TypedDict, total=False):
    """How one registry is spoken to.

    `insecure` is whether certificates are not checked and plain http will do; None, or no such key,
    is yes for this machine itself unless there is a `ca_file`, no for others. `ca_file` is the
    absolute path of the certificates that vouch for the registry.
    """

    insecure: Optional[bool]
    ca_file: Optional[str]


class Access(TypedDict, total=False):
    """What the parent process offers: the environment of skopeo, settings for registries by address
    (`host` or `host:port`), the seconds that a command of skopeo may take, and Nix' environment."""

    env: Dict[str, str]
    registries: Dict[str, RegistryAccess]
    timeout: int
    nix_env: Dict[str, str]


def read_access() -> Access:
    """What the process that started this one offers; nothing if it offers nothing.

    Raises `ToolError` where somebody else could have written it, or could read it.
    """
    parent = os.getppid()
    offered = _memory_files(parent)
    if not offered:
        text = _access_file(parent)
        offered = [json.loads(text)] if text else []
    # While it is replaced, there are two.
    if not offered:
        return {}
    last: Access = max(offered, key=lambda offer: int(offer["serial"]))["access"]
    return last


def _memory_files(process: int) -> list[dict[str, Any]]:
    found = []
    directory = f"/proc/{process}/fd"
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    for name in names:
        path = f"{directory}/{name}"
        try:
            if os.readlink(path) != f"/memfd:{ACCESS_NAME} (deleted)":
                continue
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_uid == os.geteuid():
                    found.append(json.loads(file.read()))
        except (OSError, ValueError):
            continue  # closed meanwhile, or not complete yet; then there is another
    return found


def _access_file(process: int) -> bytes | None:
    directory = ACCESS_DIRECTORY.format(uid=os.geteuid())
    path = f"{directory}/{process}"
    try:
        directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        _check_private(directory_fd, directory)
        fd = os.open(str(process), os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory_fd)
    except FileNotFoundError:
        return None
    finally:
        os.close(directory_fd)
    with open(fd, "rb") as file:
        _check_private(fd, path)
        return file.read()


def _check_private(fd: int, path: str) -> None:
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ToolError(
            f"{path} holds how to access registries, but others could have written it or could "
            "read it; remove it"
        )


class Skopeo:
    """Reads images of one repository of a registry, or writes them there.

    :param image: `host/repository` or `host:port/repository`; one of Docker Hub's without a host.
    :param scratch: an existing directory for temporary files.
    :param purpose: `pull` or `push`, what for, which errors tell.

    All methods raise `RegistryError` with the cause and the way out, and `ToolError` where it is
    not the registry's. Nothing that is read is verified. A reference is a digest or a tag.
    """

    def __init__(self, image: str, access: Access, scratch: str, purpose: str = "pull") -> None:
        self._image = image
        self._purpose = purpose
        self._host = registry_of(image)
        self._scratch = os.path.abspath(scratch)
        given = access.get("env") or {}
        self._env = {"PATH": _DEFAULT_PATH, **given, "TMPDIR": self._scratch}
        self.timeout = int(access.get("timeout") or _DEFAULT_SECONDS)
        self.short_timeout = min(self.timeout, _MANIFEST_SECONDS)
        registries = access.get("registries") or {}
        self._tls_options = self._find_tls_options(registries.get(self._host, {}))
        self._auth_options = self._find_auth_options()
        self._program = self._find()

    def manifest(self, reference: str) -> bytes:
        """The manifest or index with this reference."""
        return self._inspect(["--raw"], reference)

    def config(self, reference: str) -> bytes:
        """The config of the image whose manifest has this reference."""
        return self._inspect(["--config", "--raw"], reference)

    def copy(self, reference: str, directory: str) -> None:
        """Makes `directory` with the image's blobs as they are, each named by the hex digest."""
        # The transport `dir` takes what comes; `oci` would change manifests of Docker's kind.
        options = [f"--src-{option[2:]}" for option in self._tls_options]
        command = ["copy", "--quiet", "--retry-times", "3", *options, *self._auth_options]
        command += [self._name(reference), f"dir:{os.path.abspath(directory)}"]
        self._run(command, reference, self.timeout)

    def push(self, source: str, reference: str, seconds: int, *options: str) -> None:
        """Copies the image `source` here, byte for byte, without a second attempt.

        Blobs that the repository has, or that it can mount from another one that this machine's
        skopeo has seen them in, are not read. The manifest comes last.

        :param source: in skopeo's words, `oci:…` or `docker://…`.
        :param seconds: how long it may take.
        :param options: how the source is read.
        """
        own = [f"--dest-{option[2:]}" for option in self._tls_options]
        # One file would be for source and destination, and some sources have options of their own.
        own += [f"--dest-{option[2:]}" for option in self._auth_options]
        command = ["copy", "--quiet", "--preserve-digests", *options, *own]
        self._run([*command, source, self._name(reference)], reference, max(1, seconds))

    def _inspect(self, what: list[str], reference: str) -> bytes:
        command = ["inspect", *what, "--retry-times", "3", *self._tls_options, *self._auth_options]
        command.append(self._name(reference))
        return self._run(command, reference, self.short_timeout)

    def _name(self, reference: str) -> str:
        return f"docker://{full_name(self._image, reference)}"

    def _find_tls_options(self, settings: RegistryAccess) -> list[str]:
        options = []
        insecure, ca_file = settings.get("insecure"), settings.get("ca_file")
        if insecure is None:
            insecure = not ca_file and _is_loopback(self._host)
        if insecure:
            options.append("--tls-verify=false")
        if ca_file:
            _check_certificates(ca_file, self._host)
            certificates = os.path.join(self._scratch, "certificates")
            os.makedirs(certificates, exist_ok=True)
            link = os.path.join(certificates, "ca.crt")
            if not os.path.lexists(link):
                os.symlink(ca_file, link)
            options.append(f"--cert-dir={certificates}")
        return options

    def _find_auth_options(self) -> list[str]:
        # skopeo itself knows REGISTRY_AUTH_FILE, but, in older versions, not DOCKER_CONFIG.
        docker_config = self._env.get("DOCKER_CONFIG")
        if docker_config and not self._env.get("REGISTRY_AUTH_FILE"):
            auth_file = os.path.join(docker_config, "config.json")
            if os.path.exists(auth_file):
                return [f"--authfile={auth_file}"]
        return []

    def _find(self) -> str:
        from shutil import which

        path = ":".join(x for x in self._env["PATH"].split(":") if os.path.isabs(x))
        program = which("skopeo", path=path)
        if not program:
            raise ToolError(
                f"{self._purpose}ing an image needs skopeo, which is not on {path}; {_INSTALL}"
            )
        code, output, _ = _execute([program, "--version"], self._env, _GRACE_SECONDS)
        match = re.search(rb"version v?(\d+)\.(\d+)", output)
        if code or not match:
            raise ToolError(f"{program} does not run: `skopeo --version` says no version")
        version = (int(match[1]), int(match[2]))
        minimum = _MINIMUM_VERSIONS[self._purpose]
        if version < minimum:
            raise ToolError(
                "{}ing an image needs skopeo {}.{} or newer, and {} is {}.{}; {}".format(
                    self._purpose, *minimum, program, *version, _INSTALL
                )
            )
        return program

    def _run(self, command: list[str], reference: str, seconds: int) -> bytes:
        options = [f"--command-timeout={seconds}s", f"--tmpdir={self._scratch}"]
        code, output, errors = self._skopeo([*options, *command], seconds)
        if code and _lacks_policy(errors):
            # As with Docker, no policy means that signatures are not asked for.
            code, output, errors = self._skopeo(["--insecure-policy", *options, *command], seconds)
        if code:
            said = self._without_secrets(errors)
            kind, reason = explain(code, said, self._image, reference, seconds, self._purpose)
            name = full_name(self._image, reference)
            raise RegistryError(f"cannot {self._purpose} {name}", kind, reason, said)
        return output

    def _skopeo(self, arguments: list[str], seconds: int) -> tuple[int, bytes, str]:
        command = [self._program, *arguments]
        code, output, errors = _execute(command, self._env, seconds + _GRACE_SECONDS)
        return code, output, errors.decode(errors="replace")

    def _without_secrets(self, text: str) -> str:
        login = re.compile(r"(?<=://)[^/\s\"]+(?=@)")
        for value in self._env.values():
            for found in login.findall(value):
                for secret in {found, found.partition(":")[2]} - {""}:
                    text = text.replace(secret, "***")
        return login.sub("***", text)


def _check_certificates(ca_file: str, host: str) -> None:
    # skopeo would say no more than that it does not trust the registry.
    try:
        with open(ca_file, "rb") as file:
            if b"-----BEGIN CERTIFICATE-----" in file.read():
                return
        problem = "has no certificate in the PEM format"
    except OSError:
        problem = "cannot be read"
    raise ToolError(
        f"the ca_file {ca_file} of the registry {host} {problem}; see [docker-nix].registries"
    )


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    return name in ("localhost", "[::1]") or re.fullmatch(r"127(\.\d+){3}", name) is not None


def _lacks_policy(errors: str) -> bool:
    return "policy.json" in errors and bool(
        re.search(r"no such file or directory|no policy\.json file found", errors)
    )


def _execute(command: List[str], env: Dict[str, str], seconds: int) -> tuple[int, bytes, bytes]:
    """The exit code, stdout and stderr of a command, which does not outlive this process.

    It stays in the process group, so that who kills that kills it too. After `seconds` it is killed
    and stderr ends as if it had noticed itself.
    """
    previous = signal.signal(signal.SIGTERM, exit_on_signal)
    process = None
    try:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=die_with_parent(),
        )
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            errors += b"\ncontext deadline exceeded"
        return process.returncode, output, errors
    finally:
        signal.signal(signal.SIGTERM, previous)
        if process and process.returncode is None:
            process.kill()
            process.wait()


def die_with_parent(number: int = signal.SIGKILL) -> Callable[[], None] | None:
    """What a child of this process does first, so that it gets the signal if this one dies."""
    if not sys.platform.startswith("linux"):
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def in_child() -> None:
        libc.prctl(1, number)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def exit_on_signal(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
