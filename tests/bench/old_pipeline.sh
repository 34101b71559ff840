#!/usr/bin/env bash
# The image builder that ours is measured against: what Nix' buildLayeredImage did in early 2020, step
# by step and with the same tools.
#
#   old_pipeline.sh ROOT IMAGE     ROOT holds nix/store/<path>..., IMAGE is made, with IMAGE/image.tar.gz
#
# One thing differs: the layer's TarSum, a SHA-256 over headers and contents, was computed by a
# program of Docker's. Another sha256sum of the tar stands for it; it reads and hashes as many bytes.
# Left out, in the old builder's favour: the customisation layer, and its copies of finished layers.
set -euo pipefail

root=$1
image=$2
mkdir -p "$image/layers"

for path in "$root"/nix/store/*; do
    layer=$image/layers/${path##*/}
    mkdir "$layer"
    tar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner \
        -C "$root" -cf "$layer/layer.tar" "nix/store/${path##*/}"
    sha256sum "$layer/layer.tar" | cut -d " " -f 1 >"$layer/checksum"
    sha256sum "$layer/layer.tar" | cut -d " " -f 1 >"$layer/diff_id"
done

tar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner -C "$image/layers" -cf - . |
    pigz -nT >"$image/image.tar.gz"
