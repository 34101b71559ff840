"""Bad input: each row is a mistake that a user can make, and all that Pants then says.

A row is a directory of one repository with an image `img`. Every message names the target, the
field, the value and the way out, and nothing of the image is left in the distdir.

The rows at the end are odd, but no mistakes.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Sequence, Tuple, Union

import pytest

from support.workspace import Repo, Run

FILE, SYMLINK, DEVICE, DIRECTORY = (
    tarfile.REGTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.DIRTYPE,
)


def tar(*members: Tuple[str, bytes, str]) -> bytes:
    """A tar of members with a name, a type, and a symlink's target or a file's content."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == FILE:
                info.size = len(text)
            else:
                info.linkname = text
            archive.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


def encrypted_zip() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("secret", "x")
    content = bytearray(data.getvalue())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    return bytes(content)


@dataclass(frozen=True)
class Case:
    """A directory called `name`.

    :param build: the rest of its BUILD file, after the fields of the image.
    :param links: symlinks, by their path.
    :param error: all that follows "Exception encountered"; `ROOT` is the repository.
    :param options: of this run only.
    """

    name: str
    fields: str
    error: str = ""
    build: str = ""
    files: Mapping[str, Union[str, bytes]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()

    def write(self, repo: Repo) -> None:
        repo.write(
            f"{self.name}/BUILD",
            f'docker_nix_layered(name="img", {self.fields})\n{self.build}\n',
        )
        for path, content in self.files.items():
            repo.write(f"{self.name}/{path}", content)
        for path, target in self.links.items():
            link = repo.root / self.name / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)


def field_value(name: str, fields: str, problem: str) -> Case:
    """A field that is wrong in itself, which Pants reports with the line of the BUILD file."""
    alias = fields.partition("=")[0]
    error = f"InvalidTargetException: {name}/BUILD:1: The '{alias}' field in target {name}:img {problem}"
    return Case(name, fields, error)


def archive(name: str, file: str, content: Union[str, bytes], problem: str) -> Case:
    """An archive that cannot be unpacked."""
    return Case(
        name,
        'contents=[":f"]',
        f"DockerNixError: The archive of target {name}:f cannot be unpacked.\n\nerror: {problem}",
        f'file(name="f", source="{file}")',
        {file: content},
    )


def script(name: str, text: str, output: str) -> Case:
    """`extra_commands` that fail."""
    return Case(
        name,
        f"extra_commands={text!r}",
        f"DockerNixError: The target {name}:img cannot be built. Packing a layer of links to the "
        f"contents after extra_commands failed.\n\n{output}",
    )


def two(name: str, first: Mapping[str, str], second: Mapping[str, str], error: str) -> Case:
    """Two contents, `:a` and `:b`, with files at the same places."""
    build = "".join(
        f'relocated_files(name="{x}", files_targets=[":{x}-files"], src="{name}/{x}", dest="")\n'
        f'files(name="{x}-files", sources=["{x}/**"])\n'
        for x in "ab"
    )
    files = {
        f"{x}/{path}": text for x, part in zip("ab", (first, second)) for path, text in part.items()
    }
    return Case(
        name,
        'contents=[":a", ":b"]',
        f"DockerNixError: The 'contents' field in target {name}:img has two targets that want "
        f"different things at one path: {error}.\n\nLeave one of them out, or move it with a "
        "`relocated_files` target.",
        build,
        files,
    )


FILES = 'files(name="f", sources=["**", "!BUILD"])'
BAD: List[Case] = [
    field_value("name-type", "image_name=3", "must be a string, but was `3` with type `int`."),
    field_value(
        "name-value",
        'image_name="a b"',
        (
            "is 'a b', which is not a legal image name. Use letters, digits, single `.`, "
            "`_` or `-` between them, and `/`, without a tag (tags go into 'image_tags')."
        ),
    ),
    field_value(
        "name-with-tag",
        'image_name="app:v1"',
        (
            "is 'app:v1', which is not a legal image name. Use letters, digits, single "
            "`.`, `_` or `-` between them, and `/`, without a tag (tags go into "
            "'image_tags')."
        ),
    ),
    field_value(
        "name-empty",
        'image_name=""',
        (
            "is '', which is not a legal image name. Use letters, digits, single `.`, `_` "
            "or `-` between them, and `/`, without a tag (tags go into 'image_tags')."
        ),
    ),
    field_value(
        "tags-type",
        'image_tags="v1"',
        (
            "must be an iterable of strings (e.g. a list of strings), but was `'v1'` with "
            "type `str`."
        ),
    ),
    field_value(
        "tags-none",
        "image_tags=[]",
        (
            "is an empty list. Give at least one tag, or leave the field out for a tag "
            "made from the content."
        ),
    ),
    field_value(
        "tags-value",
        'image_tags=["v1", "-x"]',
        (
            "has '-x', which is not a legal tag. A tag has 1 to 128 letters, digits, `_`, "
            "`.` and `-`, and begins with none of the last two."
        ),
    ),
    field_value(
        "contents-type",
        'contents=":f"',
        (
            "must be an iterable of strings (e.g. a list of strings), but was `':f'` with "
            "type `str`."
        ),
    ),
    field_value(
        "contents-parent",
        'contents=["../x:y"]',
        (
            "has '../x:y', which is not the address of a target. Write it as "
            "'path/to:target', from the root of the repository, or ':target' for one in "
            "the same directory."
        ),
    ),
    field_value(
        "contents-absolute",
        'contents=["/etc:x"]',
        (
            "has '/etc:x', which is not the address of a target. Write it as "
            "'path/to:target', from the root of the repository, or ':target' for one in "
            "the same directory."
        ),
    ),
    field_value(
        "config-type",
        'config=["/bin/app"]',
        'must be a dict, but is [\'/bin/app\']. Write it as {"Entrypoint": ["/bin/app"]}.',
    ),
    field_value(
        "config-key",
        'config={"EntryPoint": ["/bin/app"]}',
        (
            "is wrong: config has the unknown key 'EntryPoint'. Did you mean 'Entrypoint'? "
            "The keys are Cmd, Entrypoint, Env, ExposedPorts, Healthcheck, Labels, "
            "StopSignal, User, Volumes, WorkingDir."
        ),
    ),
    field_value(
        "config-string",
        'config={"Cmd": "/bin/app"}',
        (
            "is wrong: config['Cmd'] must be a list of strings, but is a string: "
            '\'/bin/app\'. Write it as ["/bin/app", "--flag"].'
        ),
    ),
    field_value(
        "config-env",
        'config={"Env": ["MODE"]}',
        (
            "is wrong: config['Env'][0] is 'MODE', which is not of the form NAME=value. "
            'Write it as ["NAME=value"].'
        ),
    ),
    field_value(
        "config-port",
        'config={"ExposedPorts": {"65536/tcp": {}}}',
        (
            "is wrong: config['ExposedPorts'] has '65536/tcp', which is not a port such as "
            "'8080/tcp'. Write it as {\"8080/tcp\": {}}."
        ),
    ),
    field_value(
        "config-label",
        'config={"Labels": {"a": 1}}',
        (
            "is wrong: config['Labels']['a'] must be a string, but is an int: 1. Write it "
            'as {"org.opencontainers.image.title": "name"}.'
        ),
    ),
    field_value(
        "config-health",
        'config={"Healthcheck": {"Intervall": 1}}',
        (
            "is wrong: config['Healthcheck'] has the unknown key 'Intervall'. Did you mean "
            "'Interval'? The keys are Interval, Retries, StartInterval, StartPeriod, Test, "
            "Timeout."
        ),
    ),
    field_value(
        "config-brace",
        'config={"Cmd": ["sh", "-c", "echo ${HOME}"]}',
        (
            "has 'echo ${HOME}' with a stray '{' at line 1, column 7. Write {{ for a "
            "literal brace, or {store_path[path/to:target]} for a store path."
        ),
    ),
    field_value(
        "config-reference",
        'config={"Cmd": ["{store_path[]}"]}',
        (
            "has '{store_path[]}' with a store path reference without an address or an end "
            "at line 1, column 1. Write it as {store_path[path/to:target]}."
        ),
    ),
    field_value(
        "config-nul",
        'config={"Cmd": ["a\\0b"]}',
        "is wrong: config['Cmd'] has a NUL character in 'a\\x00b'. Remove it.",
    ),
    field_value(
        "config-surrogate",
        'config={"Cmd": ["a\\udc80b"]}',
        "is wrong: config['Cmd'] has half a character in 'a\\udc80b'. Write it as UTF-8.",
    ),
    field_value(
        "created-value",
        'created="yesterday"',
        (
            "is 'yesterday', which is neither 'now' nor an RFC 3339 time. Write it as "
            "'1970-01-01T00:00:01Z'."
        ),
    ),
    field_value(
        "created-date",
        'created="2023-02-29T00:00:00Z"',
        (
            "is '2023-02-29T00:00:00Z', which is not a time that exists (day is out of "
            "range for month). Write it as '1970-01-01T00:00:01Z'."
        ),
    ),
    field_value("uid-type", 'uid="root"', "must be an integer, but was `'root'` with type `str`."),
    field_value("uid-value", "uid=-1", "is -1. It must be a number from 0 to 4294967294."),
    field_value("gid-bool", "gid=True", "is True. It must be a number from 0 to 4294967294."),
    field_value(
        "architecture",
        'architecture="x86_64"',
        (
            "is 'x86_64'. Did you mean 'amd64'? It must be one of 386, amd64, arm, arm64, "
            "loong64, mips64le, ppc64le, riscv64, s390x."
        ),
    ),
    field_value(
        "os",
        'os="Linux"',
        ("is 'Linux'. Did you mean 'linux'? It must be one of darwin, freebsd, linux, " "windows."),
    ),
    field_value("variant", 'variant="v 8"', "is 'v 8'. Write it as 'v8'."),
    field_value(
        "compression",
        'compression="gz"',
        "is 'gz'. Did you mean 'gzip'? It must be one of gzip, none, zstd.",
    ),
    field_value(
        "output-format",
        'output_format="docker"',
        "is 'docker'. Did you mean 'docker-archive'? It must be one of docker-archive, metadata, "
        "oci.",
    ),
    field_value(
        "layers-none",
        "max_layers=0",
        "is 0. It must be a number from 1 to 125, which is what engines can mount.",
    ),
    field_value(
        "layers-many",
        "max_layers=126",
        "is 126. It must be a number from 1 to 125, which is what engines can mount.",
    ),
    field_value(
        "layers-type", 'max_layers="x"', "must be an integer, but was `'x'` with type `str`."
    ),
    field_value(
        "layers-bool",
        "max_layers=True",
        "is True. It must be a number from 1 to 125, which is what engines can mount.",
    ),
    field_value(
        "tools-path",
        'tools=["/bin/sh"]',
        ("has '/bin/sh', which is not the name of a program. Give a name without a " "directory."),
    ),
    field_value(
        "script-type",
        'extra_commands=["true"]',
        "must be a string, but was `['true']` with type `list`.",
    ),
    field_value("script-nul", 'extra_commands="a\\0b"', "has a NUL character. Remove it."),
    field_value(
        "script-reference",
        'extra_commands="cp {store_path[:f} ."',
        (
            "has a store path reference without an address or an end at line 1, column 4. "
            "Write it as {store_path[path/to:target]}."
        ),
    ),
    Case(
        "field-unknown",
        'content=[":x"]',
        (
            "InvalidTargetException: field-unknown/BUILD:1: Unrecognized field "
            "`content=[':x']` in target field-unknown:img. Valid fields for the target "
            "type `docker_nix_layered`: ['architecture', 'compression', 'config', "
            "'contents', 'created', 'dependencies', 'description', 'environment', "
            "'extra_commands', 'from_image', 'from_image_name', 'from_image_tag', 'gid', "
            "'image_name', 'image_tags', 'include_nix_db', 'max_layers', 'os', "
            "'output_format', 'output_path', 'python_bytecode', 'python_interpreter', "
            "'registries', 'repository', 'skip_push', 'tags', 'tools', 'uid', 'variant']."
        ),
    ),
    Case(
        "compression-of-archive",
        'compression="zstd", output_format="docker-archive"',
        (
            "DockerNixError: The 'compression' field in target compression-of-archive:img "
            "is 'zstd', but a docker-archive holds its layers uncompressed.\n"
            "\n"
            "Remove it, or use output_format='oci'."
        ),
    ),
    Case(
        "path-absolute",
        'output_path="/tmp/img"',
        (
            "DockerNixError: The 'output_path' field in target path-absolute:img is "
            "'/tmp/img', which is not a plain path below the distdir.\n"
            "\n"
            "Write it as 'images/app', without a leading or trailing '/', './' or '..'."
        ),
    ),
    Case(
        "path-parent",
        'output_path="../img"',
        (
            "DockerNixError: The 'output_path' field in target path-parent:img is "
            "'../img', which is not a plain path below the distdir.\n"
            "\n"
            "Write it as 'images/app', without a leading or trailing '/', './' or '..'."
        ),
    ),
    Case(
        "contents-missing",
        'contents=[":imgs"]',
        (
            "ResolveError: The address contents-missing:imgs from the `contents` from the "
            "target contents-missing:img does not exist.\n"
            "\n"
            "The target name ':imgs' is not defined in the directory contents-missing. Did "
            "you mean one of these target names?\n"
            "\n"
            "  * :img"
        ),
    ),
    Case(
        "contents-no-directory",
        'contents=["no/such:target"]',
        (
            "ResolveError: The file or directory 'no/such' does not exist on disk in the "
            "workspace, so the address 'no/such:target' from the `contents` from the "
            "target contents-no-directory:img cannot be resolved."
        ),
    ),
    Case(
        "config-missing",
        'config={"Cmd": ["{store_path[:imgs]}/bin/app"]}',
        (
            "ResolveError: The address config-missing:imgs from the 'config' field in "
            "target config-missing:img, {store_path[…]} at line 1, column 1 does not "
            "exist.\n"
            "\n"
            "The target name ':imgs' is not defined in the directory config-missing. Did "
            "you mean one of these target names?\n"
            "\n"
            "  * :img"
        ),
    ),
    Case(
        "script-missing",
        'extra_commands="cp {store_path[:imgs]} ."',
        (
            "ResolveError: The address script-missing:imgs from the 'extra_commands' field "
            "in target script-missing:img, {store_path[…]} at line 1, column 4 does not "
            "exist.\n"
            "\n"
            "The target name ':imgs' is not defined in the directory script-missing. Did "
            "you mean one of these target names?\n"
            "\n"
            "  * :img"
        ),
    ),
    Case(
        "config-group",
        'config={"Cmd": ["{store_path[:group]}"]}',
        (
            "DockerNixError: The 'config' field in target config-group:img refers to "
            "{store_path[config-group:group]}, a group of targets without a store path of "
            "its own.\n"
            "\n"
            "Refer to one of the targets in the group."
        ),
        'target(name="group", dependencies=[":f"])\n' + FILES,
        {"x": ""},
    ),
    Case(
        "contents-self",
        'contents=[":img"]',
        (
            "DockerNixError: The 'contents' field in target contents-self:img names the "
            "target itself.\n"
            "\n"
            "Remove it: an image cannot hold itself."
        ),
    ),
    Case(
        "config-self",
        'config={"Cmd": ["{store_path[:img]}"]}',
        (
            "DockerNixError: The 'config' field in target config-self:img names the target "
            "itself.\n"
            "\n"
            "Remove it: an image cannot hold itself."
        ),
    ),
    Case(
        "script-self",
        'extra_commands="{store_path[:img]}"',
        (
            "DockerNixError: The 'extra_commands' field in target script-self:img names "
            "the target itself.\n"
            "\n"
            "Remove it: an image cannot hold itself."
        ),
    ),
    Case(
        "contents-image",
        'contents=[":other"]',
        (
            "DockerNixError: The target contents-image:other is an image, and an image "
            "cannot be one of the contents of an image.\n"
            "\n"
            "Name it in 'from_image' to build on top of it, list the contents of that image, or "
            "its root file system (a `docker_nix_export`)."
        ),
        'docker_nix_layered(name="other")',
    ),
    field_value(
        "python-brace",
        'python_interpreter="/usr/{bin/python3.11"',
        "has '/usr/{bin/python3.11' with a stray '{' at line 1, column 6. Write {{ for a literal "
        "brace, or {store_path[path/to:target]} for a store path.",
    ),
    field_value(
        "python-relative",
        'python_interpreter="python3.11"',
        "is 'python3.11', which is not an absolute path. Write it as '/usr/bin/python3.11'.",
    ),
    Case(
        "contents-sources",
        'contents=[":lib"]',
        (
            "DockerNixError: The image contents-sources:img has contents-sources:lib, a "
            "`python_sources` target, but no Python.\n"
            "\n"
            "Build it on a base image with such a Python ('from_image'), list one among the "
            "contents (a `nix_package`), or say where it is with 'python_interpreter'. A "
            "`pex_binary` can also go in as one file, whatever the image has, with "
            'python_layering="binary".'
        ),
        'python_sources(name="lib")',
        {"lib.py": ""},
    ),
    Case(
        "cycle-files",
        'contents=[":a"]',
        (
            "DockerNixError: The 'dependencies' of file targets form a cycle: "
            "cycle-files:a -> cycle-files:b -> cycle-files:a.\n"
            "\n"
            "Remove one of these dependencies; list both targets in a `target` to put them "
            "into an image together."
        ),
        'files(name="a", sources=["x"], dependencies=[":b"])\n'
        'files(name="b", sources=["y"], dependencies=[":a"])',
        {"x": "", "y": ""},
    ),
    Case(
        "cycle-groups",
        'contents=[":a"]',
        (
            "DockerNixError: The 'dependencies' of file targets form a cycle: "
            "cycle-groups:a -> cycle-groups:b -> cycle-groups:a.\n"
            "\n"
            "Remove one of these dependencies; list both targets in a `target` to put them "
            "into an image together."
        ),
        'target(name="a", dependencies=[":b"])\ntarget(name="b", dependencies=[":a"])',
    ),
    Case(
        "cycle-packages",
        'contents=[":a"]',
        (
            "DockerNixError: The target cycle-packages:img depends on itself: a package among its "
            "contents has it packed inside.\n\nRemove it from that package, or that package from "
            "the contents."
        ),
        'archive(name="a", format="tar", packages=[":img"])',
    ),
    two(
        "clash-content",
        {"etc/x": "1"},
        {"etc/x": "2"},
        ("/etc/x is a file in clash-content:a and a file with other content in " "clash-content:b"),
    ),
    two(
        "clash-directory",
        {"etc": "1"},
        {"etc/x": "2"},
        "/etc is a file in clash-directory:a and a directory in clash-directory:b",
    ),
    two(
        "clash-executable",
        {"x": "1"},
        {"x": "1"},
        ("/x is a file in clash-executable:a and an executable file in " "clash-executable:b"),
    ),
    Case(
        "clash-symlink",
        'contents=[":a", ":b"]',
        (
            "DockerNixError: The 'contents' field in target clash-symlink:img has two "
            "targets that want different things at one path: /lib/x of clash-symlink:b "
            "lies below a symlink of another content that leads into the store or in a "
            "circle.\n"
            "\n"
            "Leave one of them out, or move it with a `relocated_files` target."
        ),
        'file(name="a", source="a.tar")\nfile(name="b", source="b.tar")',
        {"a.tar": tar(("lib", SYMLINK, "lib")), "b.tar": tar(("lib/x", FILE, ""))},
    ),
    Case(
        "sources-none",
        'contents=[":f"]',
        (
            "DockerNixError: The target sources-none:f has no files, so it cannot be part "
            "of an image.\n"
            "\n"
            "Check its sources, or remove it from the 'contents' that list it."
        ),
        'files(name="f", sources=["x*"])',
    ),
    Case(
        "sources-missing",
        'contents=[":f"]',
        (
            "DockerNixError: The 'sources' field in target sources-missing:f has 'y', but "
            "there is no file 'sources-missing/y'.\n"
            "\n"
            "Create the file, check that Pants does not ignore it (`pants_ignore`, "
            "`.gitignore`), or remove it from the field."
        ),
        'files(name="f", sources=["x*", "y"])',
        {"x": ""},
    ),
    Case(
        "source-missing",
        'contents=[":f"]',
        (
            "InvalidFieldException: The 'source' field in target source-missing:f must "
            "have 1 file, but it had 0 files."
        ),
        'file(name="f", source="x")',
    ),
    Case(
        "source-parent",
        'contents=[":f"]',
        (
            "InvalidTargetException: source-parent/BUILD:2: The 'source' field in target "
            "source-parent:f should not include `../` patterns because targets can only "
            "have sources in the current directory or subdirectories. It was set to ../x. "
            "Instead, use a normalized literal file path (relative to the BUILD file)."
        ),
        'file(name="f", source="../x")',
    ),
    Case(
        "source-absolute",
        'contents=[":f"]',
        (
            "DockerNixError: The sources of target source-absolute:f cannot be read: "
            'Absolute paths not supported: "/etc/passwd"\n'
            "\n"
            "Check its 'sources', and that this user may read them."
        ),
        'file(name="f", source="/etc/passwd")',
    ),
    Case(
        "symlink-dangling",
        'contents=[":f"]',
        (
            "DockerNixError: The 'sources' field in target symlink-dangling:f matches what "
            "Pants does not take as a source: 'symlink-dangling/d/l' (a symlink to "
            "'nowhere').\n"
            "\n"
            "Remove it, or leave it out with a pattern that begins with '!'. To have such "
            "a symlink in an image, put it into an archive, or make it with "
            "`extra_commands`."
        ),
        FILES,
        {"x": ""},
        {"d/l": "nowhere"},
    ),
    Case(
        "symlink-circle",
        'contents=[":f"]',
        (
            "DockerNixError: The 'sources' field in target symlink-circle:f matches what "
            "Pants does not take as a source: 'symlink-circle/d/up' (a symlink to '..').\n"
            "\n"
            "Remove it, or leave it out with a pattern that begins with '!'. To have such "
            "a symlink in an image, put it into an archive, or make it with "
            "`extra_commands`."
        ),
        FILES,
        {"d/x": ""},
        {"d/up": ".."},
    ),
    Case(
        "symlink-relocated",
        'contents=[":r"]',
        (
            "DockerNixError: The 'sources' field in target symlink-relocated:f matches "
            "what Pants does not take as a source: 'symlink-relocated/l' (a symlink to "
            "'nowhere').\n"
            "\n"
            "Remove it, or leave it out with a pattern that begins with '!'. To have such "
            "a symlink in an image, put it into an archive, or make it with "
            "`extra_commands`."
        ),
        FILES + '\nrelocated_files(name="r", files_targets=[":f"], src="", dest="srv")',
        {"x": ""},
        {"l": "nowhere"},
    ),
    Case(
        "symlink-absolute",
        'contents=[":f"]',
        (
            "DockerNixError: The sources of target symlink-absolute:f cannot be read: "
            'Failed to read link "ROOT/symlink-absolute/l": Absolute symlink: '
            '"/etc/passwd"\n'
            "\n"
            "Pants follows symlinks among sources, but no absolute ones. Make it relative, "
            "or ignore it with `pants_ignore`. To have such a symlink in an image, put it "
            "into an archive, or make it with `extra_commands`."
        ),
        'file(name="f", source="l")',
        {},
        {"l": "/etc/passwd"},
    ),
    Case(
        "glob-characters",
        'contents=[":f"]',
        (
            "InvalidTargetException: glob-characters: The 'source' field in target "
            "glob-characters/g[*][[]a][?]:f should not include `*` globs, but was set to "
            "g[*][[]a][?]. Instead, use a literal file path (relative to the BUILD file)."
        ),
        FILES,
        {"g*[a]?": ""},
    ),
    Case(
        "name-whiteout",
        'contents=[":f"]',
        (
            "DockerNixError: The 'contents' field in target name-whiteout:img has "
            "name-whiteout:f, which has 'name-whiteout/etc/.wh.x', a name that layers "
            "reserve for deleted files (OCI image-spec, 'Whiteouts').\n"
            "\n"
            "Rename it, or leave it out of that target."
        ),
        FILES,
        {"etc/.wh.x": ""},
    ),
    Case(
        "name-store",
        'contents=[":f"]',
        (
            "DockerNixError: The 'contents' field in target name-store:img has "
            "name-store:f, which has 'nix/store/x', where the image keeps its store paths.\n"
            "\n"
            "Rename it, or leave it out of that target."
        ),
        'file(name="f", source="a.tar")',
        {"a.tar": tar(("nix/store/x", FILE, ""))},
    ),
    Case(
        "path-too-long-in-store",
        'contents=[":f"]',
        (
            "DockerNixError: The 'contents' field in target path-too-long-in-store:img has "
            "path-too-long-in-store:f, which has a path of 4125 bytes in the image, more "
            "than the 4095 that Linux takes: "
            "'ddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
            "ddd'….\n"
            "\n"
            "Rename it, or leave it out of that target."
        ),
        'file(name="f", source="a.tar")',
        {"a.tar": tar(("/".join(["d" * 239] * 17), FILE, ""))},
    ),
    archive(
        "archive-cut",
        "a.tar.gz",
        gzip.compress(tar(("x", FILE, "x" * 5000)))[:60],
        (
            "the tar.gz archive cannot be read: the compressed data is truncated; is it "
            "complete, and really a tar.gz file? It starts like gzip."
        ),
    ),
    archive(
        "archive-text",
        "a.zip",
        "hello\n",
        (
            "the zip archive cannot be read: File is not a zip file; is it complete, and "
            "really a zip file?"
        ),
    ),
    archive(
        "archive-empty",
        "a.tar",
        "",
        (
            "the tar archive cannot be read: it ends without the end-of-archive mark; is "
            "it complete, and really a tar file?"
        ),
    ),
    archive(
        "member-parent",
        "a.tar",
        tar(("../x", FILE, "")),
        (
            "the tar archive: member '../x' has \"..\" in its name; repack the archive "
            "without leaving its directory"
        ),
    ),
    archive(
        "member-absolute",
        "a.tar",
        tar(("/x", FILE, "")),
        (
            "the tar archive: member '/x' has an absolute name; repack the archive with "
            "relative names"
        ),
    ),
    archive(
        "member-device",
        "a.tar",
        tar(("null", DEVICE, "")),
        (
            "the tar archive: member 'null' is a character device; only files, directories "
            "and links can be unpacked: repack the archive without it"
        ),
    ),
    archive(
        "member-through-link",
        "a.tar",
        tar(("d", SYMLINK, "/etc"), ("d/x", FILE, "")),
        (
            "the tar archive: member 'd/x' would be written through the symlink 'd' -> "
            "'/etc'; repack the archive with the real path"
        ),
    ),
    archive(
        "member-two-kinds",
        "a.tar",
        tar(("d", FILE, ""), ("d/x", FILE, "")),
        (
            "the tar archive: member 'd/x' makes 'd' a directory and something else at "
            "once; remove one of the two members"
        ),
    ),
    archive(
        "member-encrypted",
        "a.zip",
        encrypted_zip(),
        ("the zip archive: member 'secret' is encrypted; repack the archive without a " "password"),
    ),
    archive(
        "member-name-256",
        "a.tar",
        tar(("n" * 256, FILE, "")),
        "the tar archive: member '" + "n" * 80 + "…" + "n" * 10 + "' has a file name of more than "
        "255 bytes; shorten it and repack",
    ),
    archive(
        "member-path-4096",
        "a.tar",
        tar(("/".join(["d" * 200] * 25), FILE, "")),
        "the tar archive: member '" + "d" * 80 + "…" + "d" * 10 + "' has a path of more than 4095 "
        "bytes; shorten it and repack",
    ),
    archive(
        "member-whiteout",
        "a.tar",
        tar(("d/.wh.x", FILE, "")),
        (
            "the tar archive: member 'd/.wh.x' has a name starting with \".wh.\", which "
            "marks a deletion in image layers; rename it and repack the archive"
        ),
    ),
    script(
        "script-exit",
        "echo out; echo why it failed >&2; exit 3",
        ("out\n" "why it failed\n" "error: extra_commands failed with exit code 3"),
    ),
    script(
        "script-command",
        "no-such-program",
        (
            "../extra_commands: line 1: no-such-program: command not found\n"
            "error: extra_commands failed with exit code 127"
        ),
    ),
    script(
        "script-syntax",
        "if",
        (
            "../extra_commands: line 2: syntax error: unexpected end of file\n"
            "error: extra_commands failed with exit code 2"
        ),
    ),
    script("script-signal", "kill -9 $$", "error: extra_commands was ended by signal 9"),
    script(
        "script-fifo",
        "mkfifo pipe",
        (
            "error: extra_commands made pipe, which is a fifo; a layer can hold files, "
            "directories and symlinks only"
        ),
    ),
    script(
        "script-whiteout",
        "touch .wh.x",
        ("error: .wh.x: names that start with .wh. mark deletions in a layer; rename " "the file"),
    ),
    script(
        "script-store",
        "mkdir -p nix/store/x",
        (
            "error: extra_commands made nix/store, but the image keeps its store paths "
            "there, which nothing may change; write to another directory"
        ),
    ),
    # The same layer for another image: the message is about that image.
    script(
        "script-exit-too",
        "echo out; echo why it failed >&2; exit 3",
        ("out\n" "why it failed\n" "error: extra_commands failed with exit code 3"),
    ),
    Case(
        "tools-missing",
        'extra_commands="true", tools=["no-such-tool"]',
        (
            "DockerNixError: The target tools-missing:img cannot be built. Cannot find "
            "`no-such-tool` on `['/bin', '/usr/bin']`. Please ensure that it is installed "
            "so that Pants can run the `extra_commands`.\n"
            "\n"
            "The programs in 'tools' are looked up on [docker-nix].executable_search_paths."
        ),
        options=["--docker-nix-executable-search-paths=['/usr/bin', '/bin']"],
    ),
    Case(
        "python-missing",
        "",
        (
            "DockerNixError: The target python-missing:img cannot be built. The option "
            "[docker-nix].python is '/no/such/python', which is not a Python of version "
            "3.8 or newer with ctypes.\n"
            "\n"
            "Set it (or 'docker_nix_python' of the environment's target, which goes before it) to "
            "the absolute path of one, or unset it to use the first python3 on "
            "[docker-nix].executable_search_paths."
        ),
        options=["--docker-nix-python=/no/such/python"],
    ),
]


def message(run: Run, repo: Repo) -> str:
    """What Pants says after "Exception encountered", without its own trace of rules."""
    text = run.stderr.partition("Exception encountered:\n")[2]
    text = re.sub(r"\A\s*Engine traceback:\n(?:  .*\n)+\n", "", text)
    return text.strip().replace(str(repo.root), "ROOT")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    repo = Repo(tmp_path_factory.mktemp("bad"), pantsd=True)
    for case in BAD:
        case.write(repo)
    (repo.root / "clash-executable/b/x").chmod(0o755)
    yield repo
    repo.close()


@pytest.mark.parametrize("case", BAD, ids=[case.name for case in BAD])
def test_bad_input(repo: Repo, case: Case) -> None:
    run = repo.pants(*case.options, "package", f"{case.name}:img", check=False)
    assert message(run, repo) == case.error
    assert run.exit_code == 1
    assert "Traceback (most recent call last)" not in run.output
    assert not (repo.root / "dist" / case.name).exists()


def unprivileged() -> List[str]:
    """A prefix for a command that must obey file modes, even if this user is root."""
    if os.geteuid():
        return []
    dropped = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"]


def test_unreadable_file(repo: Repo) -> None:
    repo.write("unreadable/BUILD", f'docker_nix_layered(name="img", contents=[":f"])\n{FILES}\n')
    repo.write("unreadable/x", "secret", mode=0)
    run = repo.pants("--no-pantsd", "package", "unreadable:img", check=False, prefix=unprivileged())
    assert message(run, repo) == (
        "DockerNixError: The sources of target unreadable:f cannot be read: Failed to open "
        '"ROOT/unreadable/x": Permission denied (os error 13)\n\n'
        "Check its 'sources', and that this user may read them."
    )
    assert not (repo.root / "dist/unreadable").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
@pytest.mark.parametrize("megabytes", [4, 20])
def test_full_disk(repo: Repo, tmp_path: Path, megabytes: int) -> None:
    """No room for the blob that a process writes, or not even for its input."""
    target = f"full-{megabytes}"
    repo.write(f"{target}/BUILD", f'docker_nix_layered(name="img", contents=[":f"])\n{FILES}\n')
    repo.write(f"{target}/x", os.urandom(megabytes * 1_000_000))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", tmp_path]).returncode:
        pytest.skip("root may not mount here")
    try:
        run = repo.pants(
            "--no-pantsd",
            f"--local-execution-root-dir={tmp_path}",
            "package",
            f"{target}:img",
            check=False,
        )
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert message(run, repo).startswith(
        f"DockerNixError: The target {target}:img cannot be built."
    )
    assert "No space left on device" in message(run, repo)
    assert "Traceback (most recent call last)" not in run.output
    assert not (repo.root / "dist" / target).exists()
    assert repo.pants("package", f"{target}:img").exit_code == 0


@dataclass(frozen=True)
class Node:
    """A path of an image: what it is, a symlink's target, a file's content."""

    kind: bytes
    target: str = ""
    content: bytes = b""


def image(repo: Repo, output: str) -> Dict[str, Node]:
    """All paths of a packaged image, its layers applied in order."""
    nodes: Dict[str, Node] = {}
    for layer in repo.info(output)["docker_nix"]["layers"]:
        blob = repo.root / "dist" / output / "blobs" / layer["digest"].replace(":", "/")
        with tarfile.open(blob) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isreg() else None
                content = file.read() if file else b""
                nodes[member.name] = Node(member.type, member.linkname, content)
    return nodes


def at_root(nodes: Mapping[str, Node]) -> Dict[str, Node]:
    """What appears at `/` besides the store: links into the store replaced by what is there."""
    return {
        path: nodes[node.target[1:]] if node.target.startswith("/nix/store/") else node
        for path, node in nodes.items()
        if path != "nix" and not path.startswith("nix/")
    }


NAMES = (
    "with space",
    "ünï çödé 中文",
    "two\nlines",
    "quote\"s' and `",
    "back\\slash",
    "-dash",
    "{brace}$dollar",
    "n" * 255,
    "中" * 85,
)

DEEP = "/".join(["deep"] * 120)

ODD: List[Case] = [
    Case(
        "odd-deep",
        'contents=[":f"]',
        build='files(name="f", sources=["**/deep"])',
        files={DEEP: "deep"},
    ),
    Case(
        "odd-names",
        'contents=[":f"]',
        build='files(name="f", sources=["in/**"])',
        files={f"in/{name}": name for name in NAMES},
    ),
    Case(
        "odd-archive",
        'contents=[":f"]',
        build='file(name="f", source="a.tar")',
        files={
            "a.tar": tar(
                ("dangling", SYMLINK, "no/where"),
                ("absolute", SYMLINK, "/etc/passwd"),
                ("loop", SYMLINK, "loop"),
                ("d/up", SYMLINK, ".."),
                ("out", SYMLINK, "../../out"),
                ("empty", DIRECTORY, ""),
                ("nothing", FILE, ""),
                ("glob*[a]?", FILE, "g"),
                (DEEP, FILE, "deep"),
            )
        },
    ),
    Case(
        "odd-made",
        'contents=[":f"], extra_commands="ln -s no/where made; : > empty-file; mkdir empty-dir"',
        build=FILES,
        files={"x": "x"},
    ),
    Case(
        "odd-links",
        'contents=[":f"]',
        build=FILES,
        files={"d/x": "x"},
        links={"file": "d/x", "directory": "d"},
    ),
    Case("odd-upper", 'image_name="Team/App", image_tags=["V1", "v1", "Latest"]'),
    Case(
        "odd-upper-archive",
        'image_name="Team/App", image_tags=["V1"], output_format="docker-archive"',
    ),
    Case("odd-none", "contents=[]"),
    Case(
        "odd-one-layer",
        'contents=[":a", ":b"], max_layers=1',
        build='files(name="a", sources=["x"])\nfiles(name="b", sources=["y"])',
        files={"x": "x", "y": "y"},
    ),
    Case(
        "odd-twice",
        'contents=[":f", ":f", "odd-twice:f", "//odd-twice:f"]',
        build=FILES,
        files={"x": "x"},
    ),
    Case(
        "odd-same",
        'contents=[":a", ":b"]',
        build='files(name="a", sources=["x"])\nfiles(name="b", sources=["x"])',
        files={"x": "x"},
    ),
    Case(
        "odd-packed-image",
        'contents=[":packed"]',
        build='archive(name="packed", format="tar", packages=[":other"])\n'
        'docker_nix_layered(name="other")',
    ),
    Case(
        "odd-generated",
        'contents=[":make"]',
        build="""shell_command(
            name="make",
            command="mkdir -p o/empty; ln -s no/where o/dangling; ln -s /etc o/absolute; echo > o/x",
            tools=["mkdir", "ln"],
            output_directories=["o"],
        )""",
    ),
]


@pytest.fixture(scope="module")
def odd(repo: Repo) -> Repo:
    """The repository with all odd images built."""
    for case in ODD:
        case.write(repo)
    repo.write("odd-name/BUILD", 'docker_nix_layered(name="x.tar.gz", max_layers=1)\n')
    repo.pants("package", *(f"{case.name}:img" for case in ODD), "odd-name:x.tar.gz")
    return repo


def read(repo: Repo, path: str) -> str:
    return (repo.root / "dist" / path).read_text()


def test_odd_names(odd: Repo) -> None:
    found = at_root(image(odd, "odd-names/img"))
    for name in NAMES:
        assert found.pop(f"odd-names/in/{name}") == Node(FILE, content=name.encode())
    assert found == {"odd-names": Node(DIRECTORY), "odd-names/in": Node(DIRECTORY)}


def test_deep_tree(odd: Repo) -> None:
    found = at_root(image(odd, "odd-deep/img"))
    assert found[f"odd-deep/{DEEP}"] == Node(FILE, content=b"deep")
    assert len(found) == 1 + len(DEEP.split("/"))


def test_archives_are_kept_as_they_are(odd: Repo) -> None:
    nodes = image(odd, "odd-archive/img")
    found = at_root(nodes)
    assert found.pop(DEEP) == Node(FILE, content=b"deep")
    assert {path: node for path, node in found.items() if not path.startswith("deep")} == {
        "dangling": Node(SYMLINK, "no/where"),
        "absolute": Node(SYMLINK, "/etc/passwd"),
        "loop": Node(SYMLINK, "loop"),
        "d": Node(DIRECTORY),
        "d/up": Node(SYMLINK, ".."),
        # Out of its tree: so it must lead out of the same place, that is of the store path.
        "out": Node(SYMLINK, "../../out"),
        "empty": Node(DIRECTORY),
        "nothing": Node(FILE),
        "glob*[a]?": Node(FILE, content=b"g"),
    }
    assert nodes["out"].target.startswith("/nix/store/")


def test_generated_symlinks_are_kept(odd: Repo) -> None:
    assert at_root(image(odd, "odd-generated/img")) == {
        "odd-generated": Node(DIRECTORY),
        "odd-generated/o": Node(DIRECTORY),
        "odd-generated/o/absolute": Node(SYMLINK, "/etc"),
        "odd-generated/o/dangling": Node(SYMLINK, "no/where"),
        "odd-generated/o/empty": Node(DIRECTORY),
        "odd-generated/o/x": Node(FILE, content=b"\n"),
    }


def test_symlinks_among_sources_are_followed(odd: Repo) -> None:
    """As Pants does it everywhere, `archive` included."""
    assert at_root(image(odd, "odd-links/img")) == {
        "odd-links": Node(DIRECTORY),
        "odd-links/d": Node(DIRECTORY),
        "odd-links/d/x": Node(FILE, content=b"x"),
        "odd-links/directory": Node(DIRECTORY),
        "odd-links/directory/x": Node(FILE, content=b"x"),
        "odd-links/file": Node(FILE, content=b"x"),
    }


def test_what_a_script_makes_is_kept(odd: Repo) -> None:
    assert at_root(image(odd, "odd-made/img")) == {
        "made": Node(SYMLINK, "no/where"),
        "empty-dir": Node(DIRECTORY),
        "empty-file": Node(FILE),
        "odd-made": Node(DIRECTORY),
        "odd-made/x": Node(FILE, content=b"x"),
    }


def test_upper_case_is_lowered_everywhere(odd: Repo) -> None:
    names = ["team/app:v1", "team/app:latest"]
    info = odd.info("odd-upper/img")
    assert [r["repository"] for r in info["registries"]] == ["team/app"]
    assert {tag["name"] for tag in info["registries"][0]["tags"]} == set(names)
    assert {tag["tag"] for tag in info["registries"][0]["tags"]} == {"v1", "latest"}
    manifests = json.loads(read(odd, "odd-upper/img/index.json"))["manifests"]
    key = "org.opencontainers.image.ref.name"
    assert [manifest["annotations"][key] for manifest in manifests] == ["v1", "latest"]
    assert json.loads(read(odd, "odd-upper/img/manifest.json"))[0]["RepoTags"] == names
    with tarfile.open(odd.root / "dist/odd-upper-archive/img.tar") as packed:
        texts = {
            name: packed.extractfile(name).read().decode()  # type: ignore[union-attr]
            for name in ("manifest.json", "repositories")
        }
    assert json.loads(texts["manifest.json"])[0]["RepoTags"] == ["team/app:v1"]
    assert list(json.loads(texts["repositories"])["team/app"]) == ["v1"]


def test_image_without_contents(odd: Repo) -> None:
    assert image(odd, "odd-none/img") == {}
    assert [layer["kind"] for layer in odd.info("odd-none/img")["docker_nix"]["layers"]] == [
        "customisation"
    ]


def test_target_named_like_an_archive(odd: Repo) -> None:
    assert read(odd, "odd-name/x.tar.gz/oci-layout") == '{"imageLayoutVersion":"1.0.0"}'
    assert odd.info("odd-name/x.tar.gz")["registries"][0]["repository"] == "odd-name/x.tar.gz"


def test_one_layer_holds_all(odd: Repo) -> None:
    assert len(odd.info("odd-one-layer/img")["docker_nix"]["layers"]) == 1
    found = at_root(image(odd, "odd-one-layer/img"))
    assert {path: node.content for path, node in found.items() if node.kind == FILE} == {
        "odd-one-layer/x": b"x",
        "odd-one-layer/y": b"y",
    }


def test_contents_listed_twice_are_there_once(odd: Repo) -> None:
    kinds = [layer["kind"] for layer in odd.info("odd-twice/img")["docker_nix"]["layers"]]
    assert kinds == ["store", "customisation"]


def test_the_same_file_of_two_targets(odd: Repo) -> None:
    layers = odd.info("odd-same/img")["docker_nix"]["layers"]
    assert [layer["kind"] for layer in layers] == ["store", "store", "customisation"]
    assert at_root(image(odd, "odd-same/img")) == {
        "odd-same": Node(DIRECTORY),
        "odd-same/x": Node(FILE, content=b"x"),
    }


def test_image_packed_in_an_archive(odd: Repo) -> None:
    found = at_root(image(odd, "odd-packed-image/img"))
    assert found["odd-packed-image/other/oci-layout"].kind == FILE
