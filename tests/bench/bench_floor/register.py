"""A Pants backend that does, with nothing of ours, what no build of an image can do without.

`pants bench-floor --step=…` digests the folders below `dists/`; with `sandbox` it also puts each
into the sandbox of a process that does nothing; with `output` each process writes a file a third as
large as the folder, as a compressed layer is, and Pants takes that in.
"""

from __future__ import annotations

from enum import Enum

from pants.engine.fs import Digest, DigestEntries, FileEntry, PathGlobs, Paths, Workspace
from pants.engine.goal import Goal, GoalSubsystem
from pants.engine.process import Process, ProcessResult
from pants.engine.rules import Get, MultiGet, collect_rules, goal_rule
from pants.option.option_types import EnumOption

_OUTPUT = "find dists -type f -exec cat {} + 2>/dev/null | head -c %d >layer.blob"


class Step(Enum):
    START = "start"
    DIGEST = "digest"
    SANDBOX = "sandbox"
    OUTPUT = "output"


class BenchFloorSubsystem(GoalSubsystem):
    name = "bench-floor"
    help = "What Pants itself takes to build an image."

    step = EnumOption(default=Step.OUTPUT, help="How far to go.")


class BenchFloor(Goal):
    subsystem_cls = BenchFloorSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


@goal_rule
async def bench_floor(options: BenchFloorSubsystem, workspace: Workspace) -> BenchFloor:
    if options.step is Step.START:
        return BenchFloor(0)
    found = await Get(Paths, PathGlobs(["dists/*"]))
    trees = await MultiGet(Get(Digest, PathGlobs([f"{path}/**"])) for path in found.dirs)
    if options.step is Step.DIGEST:
        return BenchFloor(0)
    listings = await MultiGet(Get(DigestEntries, Digest, tree) for tree in trees)
    scripts = [":" for _ in trees]
    if options.step is Step.OUTPUT:
        sizes = [
            sum(e.file_digest.serialized_bytes_length for e in listing if isinstance(e, FileEntry))
            for listing in listings
        ]
        scripts = [_OUTPUT % (size // 3) for size in sizes]
    results = await MultiGet(
        Get(
            ProcessResult,
            Process(
                ("/bin/sh", "-c", script),
                input_digest=tree,
                output_files=("layer.blob",),
                env={"PATH": "/usr/bin:/bin"},
                description=f"Floor of {path}",
            ),
        )
        for script, tree, path in zip(scripts, trees, found.dirs)
    )
    for path, result in zip(found.dirs, results):
        workspace.write_digest(result.output_digest, path_prefix=f"dist/{path}")
    return BenchFloor(0)


def rules():
    return collect_rules()
