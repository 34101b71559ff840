"""What skopeo's messages mean, and what is to be done about it."""

from __future__ import annotations

import re

from docker_nix.layer.tool.errors import ToolError

# Kinds of causes: the registry, or what is before it, has said no; does not answer in time; cannot
# be reached; has a fault that may be gone in a moment; and all others.
REFUSED, LATE, UNREACHABLE = "refused", "late", "unreachable"
TEMPORARY, OTHER = "temporary", "other"


class RegistryError(ToolError):
    """What went wrong with a registry.

    :param what: what cannot be done.
    :param kind: one of the above.
    :param reason: why, and the way out.
    :param said: all that skopeo said.
    """

    def __init__(self, what: str, kind: str, reason: str, said: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.kind, self.reason, self.said = kind, reason, said


def is_digest(reference: str) -> bool:
    """Whether a reference to an image is a digest, and not a tag, which can have no colon."""
    return ":" in reference


def full_name(image: str, reference: str) -> str:
    """`IMAGE@DIGEST` or `IMAGE:TAG`."""
    return f"{image}@{reference}" if is_digest(reference) else f"{image}:{reference}"


def registry_of(image: str) -> str:
    """The registry that an image's name begins with, or else, as everywhere, Docker Hub."""
    return image.partition("/")[0] if names_registry(image) else "docker.io"


def names_registry(image: str) -> bool:
    """Whether the name of an image begins with a registry."""
    first, slash, _ = image.partition("/")
    return bool(slash) and (first == "localhost" or "." in first or ":" in first)


# Pattern in skopeo's message -> what is wrong. The words in braces are `host`, `image`, `seconds`,
# `kind` of the reference, `purpose`, `wait`, and `said`, the text that the pattern found. The first
# that fits is taken.
_LOG_IN = "log in with `docker login {host}` or `skopeo login {host}`"
_SETTINGS = "in [docker-nix].registries"
_CAUSES = (
    (
        r"no space left on device|disk quota exceeded",
        OTHER,
        "the disk is full ({said}); make room where Pants has its sandboxes",
    ),
    (
        r"rejected by policy|Source image rejected.*",
        OTHER,
        "the signature policy of this machine (containers-policy.json) forbids it: {said}",
    ),
    (
        r"(getting username and password|error getting credentials|checking authfile).*",
        REFUSED,
        "the credentials for {host} cannot be read: {said}",
    ),
    (
        r"(?i)too ?many ?requests|pull rate limit|\b429\b",
        TEMPORARY,
        "{host} allows no more requests for now ({said}); {wait}, or " + _LOG_IN,
    ),
    (
        r"(?i)x509:.*|certificate signed by unknown authority|bad certificate.*",
        REFUSED,
        "the certificate of {host} is not trusted ({said}); name the CA that vouches for it as "
        f"`ca_file` {_SETTINGS}, or set `insecure` there",
    ),
    (
        r"HTTP response to HTTPS client|does not look like a TLS handshake",
        REFUSED,
        f"{{host}} speaks plain http, not https; if it should, set `insecure` {_SETTINGS}",
    ),
    (
        r"(?i)unauthorized.*|authentication required|denied.*|invalid username/password"
        r"|\b40[13] \(.*|StatusCode: 40[13]|status 40[13]",
        REFUSED,
        "{host} refuses access ({said}); " + _LOG_IN + ", with a user that may {purpose} it",
    ),
    (
        r"(?i)manifest unknown|name unknown|\b404\b|blob unknown",
        OTHER,
        "{host} has no such image ({said}); check the repository and the {kind}",
    ),
    (
        r"(HTTP status:|status code from registry|StatusCode:|status|\ue004) 5\d\d.*",
        TEMPORARY,
        "{host} has a fault of its own ({said}); try again later",
    ),
    (
        r"Digest did not match.*|does not match (provided|expected).*",
        OTHER,
        "{host} sent other bytes than the digest stands for ({said}); nothing was kept; "
        "fetch it again",
    ),
    (
        r"context deadline exceeded|i/o timeout|TLS handshake timeout|Client\.Timeout exceeded",
        LATE,
        "{host} did not answer in time ({said}, {seconds} s); check the network, or raise "
        "[docker-nix].registry_timeout",
    ),
    (
        r"connection refused|no such host|no route to host|network is unreachable"
        r"|Temporary failure in name resolution|server misbehaving|proxyconnect.*",
        UNREACHABLE,
        "{host} cannot be reached ({said}); check the name, the port, the network and the proxy",
    ),
    (
        r"unexpected EOF|connection reset by peer|broken pipe|use of closed network connection"
        r"|server closed idle connection|stream error.*|\bEOF\b",
        TEMPORARY,
        "the connection to {host} broke off ({said}); try again",
    ),
    (r"invalid reference format", OTHER, "{image} is not the name of an image"),
)
# Those that mean something else, or are there only, when an image is pushed; looked up first.
_PUSH_CAUSES = (
    (
        r"open \S*/blobs/sha256/\w+: no such file",
        OTHER,
        "{host} lacks layers that it was said to have, or that were to come with another tag; "
        "publish again",
    ),
    (
        r"(?i)request entity too large.*|\b413\b.*|size_?invalid.*|blob too large.*",
        OTHER,
        "{host} does not take an upload of that size ({said}); raise the limit of the registry or "
        "of the proxy in front of it",
    ),
    (
        r"(?i)immutab.*|cannot be overwritten.*|\b412\b.*",
        OTHER,
        "{host} does not let the tag be given to another image ({said}); use another tag",
    ),
    (
        r"(?i)manifest invalid.*|unsupported.*|\b415\b.*",
        OTHER,
        "{host} does not take this kind of image ({said}); if it is old, try compression='gzip', "
        "or ask for support of OCI images",
    ),
    (
        r"(?i)name unknown.*|repository.*does not exist.*|\b404\b.*",
        OTHER,
        "{host} has no such repository ({said}); create it, or check its name",
    ),
)
_WAIT = {"pull": "wait, use a mirror", "push": "wait"}


def explain(
    code: int, errors: str, image: str, reference: str, seconds: int, purpose: str = "pull"
) -> tuple[str, str]:
    """The kind of the cause, and what is wrong and what to do, in one line.

    :param code: what skopeo ended with; negative where it is the signal that ended it.
    :param errors: what it said.
    :param purpose: `pull` or `push`.
    """
    fatal = re.findall(r'level=fatal msg="((?:[^"\\]|\\.)*)"', errors)
    message = re.sub(r"\\(.)", r"\1", fatal[-1].replace("\\n", " ")) if fatal else errors
    # Names could have any of the words that are looked for.
    host, repository = registry_of(image), image.partition("/")[2] or image
    names = {
        "\ue000": image,
        "\ue001": reference if is_digest(reference) else f"{image}:{reference}",
        "\ue002": f"/{repository}/",
        "\ue003": host,
        "\ue004": f" {repository}:",
    }
    searched = message
    for mark, name in names.items():
        searched = searched.replace(name, mark)
    causes = (*_PUSH_CAUSES, *_CAUSES) if purpose == "push" else _CAUSES
    for pattern, kind, cause in causes:
        match = re.search(pattern, searched)
        if match:
            said = match[0]
            for mark, name in names.items():
                said = said.replace(mark, name)
            words = {"host": host, "image": image, "seconds": seconds, "purpose": purpose}
            words["kind"] = "digest" if is_digest(reference) else "tag"
            said = said.strip(" :,")
            return kind, cause.format(said=said, wait=_WAIT[purpose], **words)
    if code < 0:
        return OTHER, f"skopeo was ended by signal {-code}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return OTHER, f"skopeo failed with exit code {code}: {' | '.join(lines[-3:])[-1000:]}"
