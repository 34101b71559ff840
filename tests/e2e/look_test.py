"""The goal `image-layers`: Pants, a real registry, a real remote cache and a real browser."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional

import pytest

from support.browser import Browser, Page, png_lines
from support.buildgrid import BuildGrid, Link, free_port
from support.debian_image import write_layout
from support.registry import Answer, Registry, StubRegistry, write_auth_file
from support.workspace import Repo

BIG = 3_000_000
UMASK = os.umask(0o022)
os.umask(UMASK)
PASSWORD = "s3cr3t-Passw0rd"

_BUILD = """\
docker_nix_pull(name="base", image_name="{registry}/team/base", image_digest="{digest}")

for name in ("big", "lib", "app", "other"):
    file(name=name, source=name + ".bin")

docker_nix_layered(
    name="app-image", from_image=":base", contents=[":big", ":lib", ":app"], image_tags=["v1"],
)
docker_nix_layered(name="other-image", contents=[":lib", ":big", ":other"])
docker_nix_image(name="single", from_image=":other-image", contents=[":app", ":lib"])
file(name="no-image", source="app.bin")
"""


def tar(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def noise(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


@dataclass(frozen=True)
class World:
    """A registry with a base, a remote cache, and a machine that has built the images."""

    root: Path
    registry: Registry
    link: Link
    repo: Repo
    base_layers: List[Dict[str, Any]]

    def look(self, *args: str, repo: Optional[Repo] = None) -> Any:
        run = (repo or self.repo).pants("image-layers", "--output-format=json", *args)
        return json.loads(run.stdout)


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """No login or setting of the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        cache = os.environ.get("XDG_CACHE_HOME", f"{Path.home()}/.cache")
        patch.setenv("XDG_CACHE_HOME", cache)
        for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("look")
    with (
        Registry(root / "registry") as registry,
        BuildGrid(root / "grid") as grid,
        Link(grid.port) as link,
    ):
        tars = [tar("usr/base", noise("base", BIG)), tar("etc/base", b"base")]
        layout = root / "base"
        write_layout(layout, tars, {"Env": ["BASE=1"]})
        digest = registry.push(f"oci:{layout}:base", "team/base")
        manifest = json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())
        repo = machine(root / "first", registry, link, digest)
        yield World(root, registry, link, repo, manifest["layers"])
        repo.close()


def machine(root: Path, registry: Registry, link: Link, digest: str, *options: str) -> Repo:
    """A machine that has built nothing yet."""
    repo = Repo(
        root / "repo",
        store=root / "store",
        pantsd=True,
        backends=["docker_nix"],
        options=[
            "--no-verify-config",
            f"--remote-store-address={link.address}",
            "--remote-cache-read",
            "--remote-cache-write",
            *options,
        ],
    )
    for name, size in (("big", BIG), ("lib", 200_000), ("app", 1_000), ("other", 500)):
        repo.write(f"app/{name}.bin", noise(name, size))
    repo.write("app/BUILD", _BUILD.format(registry=registry.address, digest=digest))
    return repo


def titles(image: Any) -> List[List[str]]:
    """The names of the store paths in each layer."""
    return [
        [path["path"].partition("-")[2] for path in layer["store_paths"]]
        for layer in image["layers"]
    ]


def test_what_it_says_is_what_is_packaged(world: World) -> None:
    """JSON of all images of a directory, against the blobs that `package` writes."""
    report = world.look("app:")
    app, base, other, single = report["images"]
    assert [image["address"] for image in report["images"]] == [
        "app:app-image",
        "app:base",
        "app:other-image",
        "app:single",
    ]
    world.repo.pants("package", "app:")
    for image, output in ((app, "app-image"), (base, "base"), (other, "other-image")):
        layout = world.repo.root / "dist/app" / output
        info = world.repo.info(f"app/{output}")
        assert image["digest"] == info["docker_nix"]["digest"]
        assert image["image_id"] == info["image_id"]
        tags = [tag["name"] for tag in info["registries"][0]["tags"]]
        assert [f"{image['name']}:{tag}" for tag in image["tags"]] == tags
        for layer, packaged in zip(image["layers"], info["docker_nix"]["layers"]):
            blob = layout / "blobs" / layer["digest"].replace(":", "/")
            assert layer["size"] == blob.stat().st_size
            assert layer["diff_id"] == packaged["diff_id"]
            paths = [path["path"] for path in packaged["store_paths"]]
            assert [path["path"] for path in layer["store_paths"]] == paths
        assert image["size"] == sum(layer["size"] for layer in image["layers"])

    assert titles(app) == [[], [], ["app"], ["big"], ["lib"], []]
    assert [layer["kind"] for layer in app["layers"]] == [
        *("base", "base", "store", "store", "store", "customisation")
    ]
    assert titles(single)[-1] == ["app"]  # the base has the other one
    shared = {layer["digest"]: layer["shared_with"] for layer in app["layers"]}
    lib = app["layers"][4]["digest"]
    assert shared[lib] == ["app:other-image", "app:single"]
    assert [layer["shared_with"] for layer in base["layers"]] == [["app:app-image"]] * 2
    # The image on the base has read it, so it is known for the base itself as well.
    assert base["layers"][0]["diff_size"] == app["layers"][0]["diff_size"] > BIG

    unique = {
        layer["digest"]: layer["size"] for image in report["images"] for layer in image["layers"]
    }
    assert report["totals"]["unique"]["size"] == sum(unique.values())
    assert report["totals"]["unique"]["layers"] == len(unique)
    assert report["totals"]["summed"]["size"] == sum(image["size"] for image in report["images"])
    assert report["totals"]["images"] == 4


def test_no_layer_is_fetched(world: World) -> None:
    """On a machine that defers, and on one that has only the pull target: metadata, no bytes."""
    world.repo.pants("package", "app:")
    digest = world.look("app:base")["images"][0]["digest"]
    second = machine(
        world.root / "second",
        world.registry,
        world.link,
        digest,
        "--cache-content-behavior=defer",
    )
    try:
        served = world.link.served
        report = world.look("app:", repo=second)
        fetched = world.link.served - served
        unique = report["totals"]["unique"]["size"]
        print(f"{fetched} bytes came from the cache to look at images of {unique} bytes")
        assert fetched < BIG / 2
        assert report == world.look("app:")
    finally:
        second.close()
    log = world.root / "registry/log"
    before = log.read_text()
    alone = machine(
        world.root / "alone", world.registry, world.link, digest, "--no-remote-cache-read"
    )
    try:
        (base,) = world.look("app:base", repo=alone)["images"]
        assert base["digest"] == digest
        assert [layer["diff_size"] for layer in base["layers"]] == [None, None]
        text = alone.pants("image-layers", "app:base").stdout
        assert "3.0 MB compressed, unknown uncompressed, 2 layers" in text
    finally:
        alone.close()
    asked = log.read_text()[len(before) :]
    assert digest in asked
    for layer in world.base_layers:
        assert layer["digest"] not in asked


def push_app(world: World, tag: str) -> str:
    """Package the application and push it; its digest."""
    world.repo.pants("package", "app:app-image")
    return world.registry.push(f"oci:{world.repo.root}/dist/app/app-image:v1", "team/app", tag)


def test_against(world: World) -> None:
    """A change of one file, seen from the old docker-info.json and from the registry."""
    old_digest = push_app(world, "v1")
    old_info = world.repo.root / "old.docker-info.json"
    shutil.copy(world.repo.root / "dist/app/app-image.docker-info.json", old_info)
    (old,) = world.look("app:app-image")["images"]
    image = f"{world.registry.address}/team/app"
    everywhere = ("old.docker-info.json", str(old_info), f"{image}:v1", f"{image}@{old_digest}")
    for against in everywhere:
        (same,) = world.look(f"--against={against}", "app:app-image")["images"]
        assert same["against"]["digest"] == old_digest
        assert same["against"]["pull"] == {"layers": 0, "config": 0, "manifest": 0, "total": 0}

    world.repo.write("app/app.bin", noise("app 2", 1_100))
    found = []
    for against in everywhere:
        (new,) = world.look(f"--against={against}", "app:app-image")["images"]
        assert new["against"].pop("name") == against
        found.append(new["against"])
    # The history of the image in the registry says as much as the docker-info.json.
    assert all(one == found[0] for one in found)
    changes = [layer["change"] for layer in found[0]["layers"]]
    assert changes == ["kept", "kept", "added", "kept", "kept", "added"]
    old_path = old["layers"][2]["store_paths"][0]["path"]
    assert found[0]["layers"][2]["store_paths"] == [
        {
            "path": new["layers"][2]["store_paths"][0]["path"],
            "change": "changed",
            "old": [old_path],
        }
    ]
    assert [(one["position"], one["gone"]) for one in found[0]["removed"]] == [
        (2, [old_path]),
        (5, []),
    ]

    # What a node that has the old image fetches for the new one, counted by a client of its own.
    pull = found[0]["pull"]
    push_app(world, "v2")
    node = world.root / "node"
    copy = ["skopeo", "copy", "--quiet", "--src-tls-verify=false"]
    fetched = []
    for tag in ("v1", "v2"):
        to = f"oci:{node}:{tag}"
        subprocess.run([*copy, f"docker://{image}:{tag}", to], check=True)
        blobs = (node / "blobs/sha256").iterdir()
        fetched.append(sum(blob.stat().st_size for blob in blobs))
    assert fetched[1] - fetched[0] == pull["total"]
    assert pull["total"] < 10_000 < BIG < new["size"]

    # A tag is looked up each time, though the daemon is the same one.
    against = f"--against={image}:moving"
    push_app(world, "moving")
    assert world.look(against, "app:app-image")["images"][0]["against"]["pull"]["total"] == 0
    world.repo.write("app/app.bin", noise("app", 1_000))
    push_app(world, "moving")
    assert world.look(against, "app:app-image")["images"][0]["against"]["pull"]["total"] == 0
    text = world.repo.pants("image-layers", against, "app:app-image").stdout
    assert f"Against {image}:moving ({old_digest}):\n  It is the same image" in text


def test_private_registry_and_odd_images(world: World) -> None:
    """A login; an index, of which the platform's image is taken; an image without history."""
    with Registry(world.root / "private", users={"joe": PASSWORD}, tls=True) as private:
        push_app(world, "v1")
        private.push(f"oci:{world.repo.root}/dist/app/app-image:v1", "team/app", "v1")
        auth = write_auth_file(world.root / "auth.json", private.address, "joe", PASSWORD)
        settings = {"p": {"address": private.address, "ca_file": str(private.ca_file)}}
        options = f"--docker-nix-registries={settings}"
        args = (options, "image-layers", f"--against={private.address}/team/app:v1")
        run = world.repo.pants(*args, "app:app-image", env={"REGISTRY_AUTH_FILE": str(auth)})
        assert "It is the same image" in run.stdout
        said = failure(world.repo, *args, "app:app-image")
        assert f"{private.address} refuses access" in said and "log in with" in said
        assert PASSWORD not in run.output + said

    foreign = world.root / "foreign"
    digest = write_layout(foreign, [tar("a", b"a")], {})
    world.registry.push(f"oci:{foreign}:base", "foreign", "v1")
    run = world.repo.pants(
        "image-layers", f"--against={world.registry.address}/foreign:v1", "app:app-image"
    )
    assert f"Against {world.registry.address}/foreign:v1 ({digest}):" in run.stdout
    assert "kept: 0 of 6 layers" in run.stdout
    assert "(new or changed: the old image does not say)" in run.stdout


def failure(repo: Repo, *args: str, env: Optional[Mapping[str, str]] = None) -> str:
    """What a failing run says to the user."""
    run = repo.pants(*args, check=False, env=env)
    assert run.exit_code == 1, run.output
    assert "Traceback" not in run.output, run.output
    assert run.stdout == ""
    return run.stderr


def test_what_cannot_be_looked_at(world: World) -> None:
    repo = world.repo
    option = "The option --image-layers-against is"
    either = (
        "Give the path of a .docker-info.json that `package` wrote, or an image in a registry with "
        "a tag or a digest, such as 'registry.example.com/team/app:v1'."
    )
    repo.write("broken.json", "{")
    repo.write("other.json", '{"version": 1, "image_id": "x", "registries": []}')
    (repo.root / "dist").mkdir(exist_ok=True)
    port = free_port()
    registry = world.registry.address
    for against, said in (
        (
            "none.json",
            f"{option} 'none.json', and there is no such file.\n\nGive a path that is absolute or "
            "from the root of the repository. `package` writes a .docker-info.json beside each "
            "image, below dist/.",
        ),
        (
            "broken.json",
            f"{option} 'broken.json', but it is not JSON (Expecting property name enclosed in "
            f"double quotes: line 1 column 2 (char 1)).\n\n{either}",
        ),
        (
            "other.json",
            f"{option} 'other.json', but it is a docker-info.json of another backend, which names "
            f"no layers.\n\n{either}",
        ),
        ("dist", f"{option} 'dist', which cannot be read (Is a directory).\n\n{either}"),
        (
            "team/app",
            f"{option} 'team/app', which is neither a file nor the name of an image with a tag."
            f"\n\n{either}",
        ),
        ("Team/App:v1", f"{option} 'Team/App:v1', which is neither a file nor the name"),
        ("", f"{option} '', which is neither a file nor the name of an image with a tag."),
        (
            "team/app@sha256:0",
            f"{option} 'team/app@sha256:0', whose digest is not 'sha256:' and 64 of the digits "
            "0-9 and a-f.\n\nWrite it as 'registry.example.com/team/app@sha256:…'.",
        ),
        (
            f"127.0.0.1:{port}/team/app:v1",
            f"{option} '127.0.0.1:{port}/team/app:v1', an image that cannot be read.\n\ncannot "
            f"pull 127.0.0.1:{port}/team/app:v1: 127.0.0.1:{port} cannot be reached (connection "
            "refused); check the name, the port, the network and the proxy",
        ),
        (
            f"{registry}/team/app:none",
            f"cannot pull {registry}/team/app:none: {registry} has no such image (manifest "
            "unknown); check the repository and the tag",
        ),
    ):
        assert said in failure(repo, "image-layers", f"--against={against}", "app:app-image")
    with StubRegistry() as stub:
        stub.answers["/manifests/"] = Answer(500)
        against = f"--against={stub.address}/team/app:v1"
        said = failure(repo, "image-layers", against, "app:app-image")
        assert f"{stub.address} has a fault of its own" in said and "try again later" in said

    assert "Invalid choice 'xml'" in (
        said := failure(repo, "image-layers", "--output-format=xml", "app:app-image")
    )
    assert "text, json, html" in said
    said = failure(repo, "image-layers", "--output-file=broken.json/x", "app:app-image")
    assert (
        "The option --image-layers-output-file is 'broken.json/x', which cannot be written ("
        in said
    )

    run = repo.pants("image-layers", "app:no-image")
    assert run.stdout == ""
    assert "The `image-layers` goal works with these target types:" in run.stderr.replace(
        "the `image", "The `image"
    )
    for target in ("docker_nix_image", "docker_nix_layered", "docker_nix_pull"):
        assert f"* {target}\n" in run.stderr


def test_output_file(world: World) -> None:
    """As a whole, in a new directory; in any locale; and nothing else on stdout."""
    for kind in ("text", "json", "html"):
        shown = world.repo.pants("image-layers", f"--output-format={kind}", "app:").stdout
        run = world.repo.pants(
            "image-layers",
            f"--output-format={kind}",
            f"--output-file=reports/new/{kind}",
            "app:",
            env={"LC_ALL": "C", "LANG": "C"},
        )
        assert run.stdout == ""
        assert (world.repo.root / f"reports/new/{kind}").read_text("utf-8") == shown
    assert sorted(os.listdir(world.repo.root / "reports/new")) == ["html", "json", "text"]


def test_peek_and_odd_outputs(world: World) -> None:
    """What is known without a build is shown; a file is replaced, a directory is not."""
    repo = world.repo
    repo.write(
        "odd/BUILD",
        "docker_nix_image(name='odd', config={'Env': ['A=1'], 'ExposedPorts': {'80/tcp': {}},"
        " 'Labels': {'a': 'b'}, 'Healthcheck': {'Test': ['NONE'], 'Retries': 2}},"
        " compression=parametrize('gzip', 'zstd'))\n",
    )
    gzip, zstd = json.loads(repo.pants("peek", "odd:").stdout)
    assert gzip["image_name"] == "odd/odd-compression-gzip"
    assert zstd["image_name"] == "odd/odd-compression-zstd"
    assert (gzip["compression"], gzip["uid"], gzip["disk_size"]) == ("gzip", 0, 1024)
    assert gzip["config"] == {
        "Env": ["A=1"],
        "ExposedPorts": {"80/tcp": {}},
        "Labels": {"a": "b"},
        "Healthcheck": {"Test": ["NONE"], "Retries": 2},
    }
    names = [image["name"] for image in world.look("odd:")["images"]]
    assert names == [gzip["image_name"], zstd["image_name"]]

    repo.write("target.txt", "old")
    (repo.root / "link.txt").symlink_to("target.txt")
    repo.pants("image-layers", "--output-file=link.txt", "odd:")
    assert (repo.root / "link.txt").is_symlink()
    assert "odd/odd-compression-zstd" in (repo.root / "target.txt").read_text()
    assert (repo.root / "target.txt").stat().st_mode & 0o777 == 0o666 & ~UMASK
    said = failure(repo, "image-layers", "--output-file=odd", "odd:")
    assert "is 'odd', which cannot be written (Is a directory)." in said
    assert not list(repo.root.glob("*.new"))
    shutil.rmtree(repo.root / "odd")


# What a person can see of the page, measured by the browser itself.
_MEASURE = """(() => {
  const box = (element) => {
    const {x, y, width, height} = element.getBoundingClientRect();
    return {x, y, width, height};
  };
  const shown = (element) => element.checkVisibility() && element.getClientRects().length > 0;
  const channel = (value) => {
    value /= 255;
    return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const color = (...layers) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const layer of layers) { canvas.fillStyle = layer; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const contrast = (element) => {
    const backgrounds = [];
    for (let at = element; at; at = at.parentElement) {
      backgrounds.unshift(getComputedStyle(at).backgroundColor);
    }
    const behind = luminance(color(...backgrounds));
    const text = luminance(color(...backgrounds, getComputedStyle(element).color));
    return (Math.max(behind, text) + 0.05) / (Math.min(behind, text) + 0.05);
  };
  const texts = [...document.querySelectorAll("body *")].filter((element) =>
    shown(element) && !element.classList.contains("hidden") && !element.closest(".hidden") &&
    [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  const treemap = document.querySelector(".treemap");
  return {
    overflow: document.documentElement.scrollWidth - window.innerWidth,
    outside: [...document.querySelectorAll("section, .tiles > div, .cards td, .treemap li")]
      .filter((e) => shown(e) && !e.closest("thead"))
      .map(box).filter((b) => b.x < -0.5 || b.x + b.width > window.innerWidth + 0.5).length,
    smallest: Math.min(...texts.map((e) => parseFloat(getComputedStyle(e).fontSize))),
    contrast: Math.min(...texts.map(contrast)),
    treemap: box(treemap),
    cells: [...treemap.children].map((e) => ({
      ...box(e), size: +e.dataset.size,
      label: e.querySelector(".label") && shown(e.querySelector(".label"))
        ? e.querySelector(".label").textContent : "",
    })),
    rows: [...document.querySelectorAll(".cards tbody tr")].map(box).length,
    dots: document.querySelectorAll(".matrix .dot").length,
    background: getComputedStyle(document.body).backgroundColor,
    tall: document.documentElement.scrollHeight,
  };
})()"""


def check_page(page: Page, png: bytes, report: Any, width: int) -> None:
    seen = page.evaluate(_MEASURE)
    assert page.requests == [page.evaluate("location.href")]
    assert seen["overflow"] <= 0 and seen["outside"] == 0, seen
    assert seen["smallest"] >= 12, seen
    assert seen["contrast"] >= 4.5, seen

    layers = {layer["digest"]: layer for image in report["images"] for layer in image["layers"]}
    cells, treemap = seen["cells"], seen["treemap"]
    assert sorted(cell["size"] for cell in cells) == sorted(
        layer["size"] for layer in layers.values()
    )
    area = treemap["width"] * treemap["height"]
    assert area > 300 * 300
    total = report["totals"]["unique"]["size"]
    for cell in cells:
        share = cell["size"] / total
        assert cell["width"] * cell["height"] / area == pytest.approx(share, rel=0.02, abs=1e-4)
        assert cell["x"] >= treemap["x"] - 0.5 and cell["y"] >= treemap["y"] - 0.5
        assert cell["x"] + cell["width"] <= treemap["x"] + treemap["width"] + 0.5
        assert cell["y"] + cell["height"] <= treemap["y"] + treemap["height"] + 0.5
        # What has room for a name has one.
        if share > 0.05:
            assert cell["label"]
    assert seen["dots"] == len(
        [0 for image in report["images"] for _ in {layer["digest"] for layer in image["layers"]}]
    )
    images = report["images"]
    assert seen["rows"] == len(images) + sum(len(image["layers"]) for image in images)

    wide, high, lines = png_lines(png)
    assert (wide, high) == (width, seen["tall"])
    assert len(set(lines)) > 500  # a blank page has a few kinds of lines


def test_the_page_in_a_browser(world: World) -> None:
    """At the width of a desktop and of a phone, in light and dark; without a script."""
    push_app(world, "page")
    world.repo.write("app/app.bin", noise("app 3", 1_000))
    against = f"--against={world.registry.address}/team/app:page"
    file = world.repo.root / "layers.html"
    report = world.look("app:app-image", "app:base", "app:other-image", "app:single")
    with Browser(world.root / "browser") as browser:
        for name, more in (("plain", ()), ("against", (against,))):
            args = ["image-layers", "--output-format=html", "--output-file=layers.html", *more]
            world.repo.pants(*args, "app:")
            backgrounds = set()
            for width, height in ((1280, 800), (390, 844)):
                for dark in (False, True):
                    page = browser.page(file.as_uri(), width=width, height=height, dark=dark)
                    shot = world.root / f"{name}-{width}-{'dark' if dark else 'light'}.png"
                    check_page(page, page.screenshot(shot), report, width)
                    backgrounds.add(page.evaluate("getComputedStyle(document.body).background"))
            assert len(backgrounds) == 2
        # Each rectangle leads to its row, which is then in sight and marked.
        page.evaluate("document.querySelector('.treemap a').click()")
        assert page.evaluate(
            "(() => { const {y} = document.querySelector('tr:target').getBoundingClientRect();"
            " return y >= 0 && y < window.innerHeight; })()"
        )
        assert page.evaluate("document.scripts.length") == 0
    world.repo.write("app/app.bin", noise("app", 1_000))


def test_a_page_of_many_images(world: World) -> None:
    """What is wider than a phone is moved inside of the page, which stays as it is."""
    world.repo.write("many/shared.txt", "shared")
    world.repo.write(
        "many/BUILD",
        "file(name='shared', source='shared.txt')\n"
        "for n in range(24):\n"
        "    docker_nix_layered(name=f'a-service-with-a-long-name-{n}', contents=[':shared'])\n",
    )
    args = ("--output-format=html", "--output-file=many.html")
    world.repo.pants("image-layers", *args, "many:")
    report = world.look("many:")
    file = world.repo.root / "many.html"
    with Browser(world.root / "browser-many") as browser:
        page = browser.page(file.as_uri(), width=390, height=844)
        check_page(page, page.screenshot(world.root / "many-390.png"), report, 390)
        region = "document.querySelector('.scroll')"
        assert page.evaluate(f"{region}.scrollWidth > {region}.clientWidth + 200")
        # The names of the layers stay in sight.
        page.evaluate(f"{region}.scrollLeft = 300")
        x = page.evaluate("document.querySelector('.matrix tbody th').getBoundingClientRect().x")
        assert 0 <= x < 40
    shutil.rmtree(world.repo.root / "many")
