"""How many small requests a server of the Remote Execution API answers in a second.

    PYTHON cluster_load.py ADDRESS SECONDS CLIENTS

PYTHON is one with the messages of that API (the environment of `buildgrid.lock`). Each client is a
process of its own, which looks a result up and then reads a blob of 400 bytes, as Pants does for
each layer that it has not got, again and again. It prints the requests a second of all clients.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import sys
import time
from importlib import import_module
from typing import Any

# By name, as they are in no resolve of this repository.
grpc = import_module("grpc")
_PROTOS = "buildgrid._protos."
re_pb2 = import_module(_PROTOS + "build.bazel.remote.execution.v2.remote_execution_pb2")
re_grpc = import_module(_PROTOS + "build.bazel.remote.execution.v2.remote_execution_pb2_grpc")
bytestream_pb2 = import_module(_PROTOS + "google.bytestream.bytestream_pb2")
bytestream_pb2_grpc = import_module(_PROTOS + "google.bytestream.bytestream_pb2_grpc")

_BLOB = b"x" * 400


def digest_of(data: bytes) -> Any:
    return re_pb2.Digest(hash=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def prepare(address: str) -> None:
    """Stores a result with one small file."""
    with grpc.insecure_channel(address) as channel:
        batch = re_pb2.BatchUpdateBlobsRequest()
        batch.requests.add(digest=digest_of(_BLOB), data=_BLOB)
        re_grpc.ContentAddressableStorageStub(channel).BatchUpdateBlobs(batch)
        result = re_pb2.ActionResult()
        result.output_files.add(path="layer.json", digest=digest_of(_BLOB))
        re_grpc.ActionCacheStub(channel).UpdateActionResult(
            re_pb2.UpdateActionResultRequest(
                action_digest=digest_of(b"action"), action_result=result
            )
        )


def ask(address: str, seconds: float, counts: Any) -> None:
    done = 0
    with grpc.insecure_channel(address) as channel:
        cache = re_grpc.ActionCacheStub(channel)
        stream = bytestream_pb2_grpc.ByteStreamStub(channel)
        lookup = re_pb2.GetActionResultRequest(action_digest=digest_of(b"action"))
        blob = digest_of(_BLOB)
        read = bytestream_pb2.ReadRequest(resource_name=f"blobs/{blob.hash}/{blob.size_bytes}")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert cache.GetActionResult(lookup).output_files
            assert b"".join(part.data for part in stream.Read(read)) == _BLOB
            done += 2
    counts.put(done)


def main() -> None:
    address, seconds, clients = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    prepare(address)
    context = multiprocessing.get_context("spawn")
    counts = context.Queue()
    processes = [
        context.Process(target=ask, args=(address, seconds, counts)) for _ in range(clients)
    ]
    for process in processes:
        process.start()
    total = sum(counts.get() for _ in processes)
    for process in processes:
        process.join()
    print(round(total / seconds))


if __name__ == "__main__":
    main()
