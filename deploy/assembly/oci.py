"""An image as an archive: the OCI image layout, with the manifest.json that older versions of docker want.

The formats: github.com/opencontainers/image-spec (image-layout.md, manifest.md, config.md) and, for
manifest.json, github.com/moby/docker-image-spec (v1.2.md, "Combined Image JSON + Filesystem Changeset Format").
"""

from __future__ import annotations

import hashlib
import json
import time

from assembly.archive import FILE, epoch, tar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def image(layers: list[tuple[str, bytes]], architecture: str, names: list[str], config: Mapping[str, Any]) -> bytes:
    """The archive of an image of `layers` (what made it, uncompressed tar), known by `names` (each NAME:TAG)."""
    blobs: dict[str, bytes] = {}

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch()))
    put_layers = [put(layer, _LAYER) for _, layer in layers]
    described = {
        "created": made,
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in put_layers]},
        "history": [{"created": made, "created_by": text} for text, _ in layers],
    }
    put_config = put(_json(described), _CONFIG)
    body = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": put_config, "layers": put_layers}
    manifest = put(_json(body), _MANIFEST)
    platform = {"architecture": architecture, "os": "linux"}
    index = [
        {
            **manifest,
            "platform": platform,
            "annotations": {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rpartition(":")[2],
            },
        }
        for name in names
    ]
    docker = [{"Config": _blob(put_config), "RepoTags": names, "Layers": [_blob(layer) for layer in put_layers]}]
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "manifests": index}),
        "manifest.json": _json(docker),
        **blobs,
    }
    return tar({path: (data, FILE) for path, data in files.items()})


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _blob(descriptor: Mapping[str, Any]) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"
