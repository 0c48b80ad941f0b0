"""Wrap files as an OCI image archive: oci_image.py NAME OUT.tar ENTRYPOINT FILE…; each FILE goes to the root.

The images of the test node have one static program in them and nothing else: FROM scratch.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile

_USER = "65532:65532"


def archive(name: str, entrypoint: str, files: list[str]) -> bytes:
    """The image, to be imported as `name`."""
    blobs: dict[str, bytes] = {}

    def put(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data)}

    layer = put(_tar({os.path.basename(file): _content(file) for file in files}), "layer.v1.tar")
    configuration = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [entrypoint], "User": _USER},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    config = put(json.dumps(configuration).encode(), "config.v1+json")
    manifest = put(json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]}).encode(), "manifest.v1+json")
    index = {"schemaVersion": 2, "manifests": [{**manifest, "annotations": {"io.containerd.image.name": name}}]}
    return _tar({"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode(), **blobs})


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


if __name__ == "__main__":
    with open(sys.argv[2], "wb") as out:
        out.write(archive(sys.argv[1], sys.argv[3], sys.argv[4:]))
