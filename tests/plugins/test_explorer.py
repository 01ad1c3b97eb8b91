"""The latent explorer: what a page is handed, the command, and the server behind a live page."""

from __future__ import annotations

import base64
import errno
import http.client
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import sfumato
from sfumato import Comparison, DataError, Model, Split
from sfumato.cli import main
from sfumato.registry import registry
from sfumato_report import explorer, packed
from sfumato_report.explored_runs import check_same, explored, opened, rendered
from sfumato_report.live import Server
from sfumato_report.pictures import Painter

ROOM = 32 * 2**20
MLP = {"type": "mlp", "hidden": [6]}


@dataclass(frozen=True)
class Named:
    """How a model is told apart."""

    letter: str
    name: str
    hue: int


def trained(family: str = "vae", latent_dim: int = 3, data: Any = "digits", **more: Any) -> Model:
    """A model after an epoch."""
    model = {"family": family, "latent_dim": latent_dim, "encoder": MLP, "decoder": MLP, **more}
    training = {"epochs": 1, "device": "cpu", "batch_size": 256}
    return sfumato.train({"data": data, "model": model, "training": training}).model


def shown(*models: Model, data: Any = None, split: str = "test") -> Comparison:
    """The models side by side."""
    splits = sfumato.load_splits(models[0].spec) if data is None else data
    return explored([(f"m{i}", m, splits) for i, m in enumerate(models)], split)


def made(
    comparison: Comparison, weights: int = ROOM, live: str | None = None
) -> explorer.Explorer:
    """The explorer of a comparison."""
    heads = [Named("ABC"[i], v.name, i) for i, v in enumerate(comparison.variants)]
    found = explorer.of_comparison(comparison, heads, weights=weights, live=live)
    assert found is not None
    return found


def block(found: explorer.Explorer) -> dict[str, Any]:
    """Its data, as a page reads it."""
    assert found.block is not None
    data: dict[str, Any] = json.loads(json.dumps(found.block, allow_nan=False))
    return data


def numbers(text: str, width: int = 0) -> Tensor:
    """Packed numbers, in rows of a width."""
    values = torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f4").copy())
    return values.view(-1, width) if width else values


def picture(source: str) -> np.ndarray[Any, Any]:
    """The pixels of a ``data:`` address."""
    head, _, content = source.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


@pytest.fixture(scope="module")
def pair() -> tuple[Comparison, tuple[Model, Model]]:
    """An autoencoder and a VAE of digits."""
    models = trained("ae", 2), trained("vae", 3)
    return shown(*models), models


Pair = tuple[Comparison, tuple[Model, Model]]


def test_codes_are_those_of_the_models(pair: Pair) -> None:
    """Modes, scales, draws, prior, directions and probes arrive bit for bit; a point says that it is one."""
    comparison, _ = pair
    found = block(made(comparison))
    assert [m["letter"] for m in found["models"]] == ["A", "B"]
    for told, variant in zip(found["models"], comparison.variants, strict=True):
        space = variant.codes
        assert space is not None
        width = space.modes.shape[1]
        assert told["width"] == width
        assert torch.equal(numbers(told["modes"], width), space.modes)
        assert torch.equal(numbers(told["prior"], width), space.prior[:200])
        assert torch.equal(numbers(told["axes"], width), space.axes)
        covariance = numbers(told["prior_moments"]["covariance"], width)
        assert torch.allclose(covariance, space.prior.T.cov(), atol=1e-5)
        assert torch.allclose(
            numbers(told["prior_moments"]["mean"]), space.prior.mean(0), atol=1e-6
        )
        assert torch.equal(numbers(told["centre"]), space.centre)
        assert torch.equal(numbers(told["probes"], width), space.probes)
        assert torch.equal(numbers(told["decoded"], 64), space.decoded.flatten(1))
    ae, vae = found["models"]
    assert (ae["point"], ae["scales"], ae["draws"]) == (True, None, None)
    space = comparison.variants[1].codes
    assert space is not None
    assert space.scales is not None
    assert vae["point"] is False
    assert torch.equal(numbers(vae["scales"], 3), space.scales)
    assert torch.equal(numbers(vae["draws"], 3), space.draws[: len(space.modes)])


def test_weights_come_back(pair: Pair) -> None:
    """Layers keep their order, options and shapes, and one run of numbers holds all of their weights."""
    space = pair[0].variants[1].codes
    assert space is not None
    assert space.decoder is not None
    told = packed.decoder(space.decoder)
    weights, at = numbers(told["weights"]), 0
    assert len(weights) == space.decoder.size
    for layer, was in zip(told["layers"], space.decoder.layers, strict=True):
        assert (layer["kind"], tuple(layer["shape"])) == (was.kind, was.shape)
        assert layer["options"] == dict(was.options)
        for name, sizes in layer["tensors"].items():
            run = weights[at : at + int(np.prod(sizes))]
            assert torch.equal(run.view(sizes), was.tensors[name])
            at += len(run)
    assert told["output"] == space.decoder.output


def test_draws_of_one_prior_are_written_once() -> None:
    """Models of one prior and one width share its draws, of another width they do not."""
    found = block(made(shown(trained("ae", 3), trained("vae", 3), trained("vae", 2))))
    first, second, third = (m["prior"] for m in found["models"])
    assert second == 0
    assert numbers(first, 3).shape == (200, 3)
    assert numbers(third, 2).shape == (200, 2)


def test_items_are_in_one_picture(pair: Pair) -> None:
    """Item after item in rows of 25, as they are, with the names of their classes."""
    comparison, _ = pair
    items = block(made(comparison))["items"]
    assert comparison.items is not None
    assert comparison.items.label is not None
    assert items["count"] == len(comparison.items) == 297
    told = items["pictures"]
    assert (told["columns"], told["width"], told["height"]) == (25, 8, 8)
    pixels = picture(told["source"])
    for item in (0, 26, 296):
        row, column = divmod(item, 25)
        wanted = (255 * comparison.items.x[item, 0]).round().numpy()
        found = pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        np.testing.assert_array_equal(found, wanted)
    assert [items["names"][i] for i in items["labels"]] == [
        str(v) for v in comparison.items.label.tolist()
    ]


def test_large_items_are_small_pictures() -> None:
    """No side above 28 pixels, and masked or overflown values draw as something."""
    painter = Painter(0.0, 1.0, "", strips=False, drawable=True)
    x = torch.rand(30, 3, 64, 48)
    x[0, 0, 0, 0] = float("nan")
    told = packed.atlas(x, painter, 25)
    assert (told["width"], told["height"]) == (21, 28)
    assert picture(told["source"]).shape == (56, 525, 3)


def test_a_budget_decides_what_is_baked(pair: Pair) -> None:
    """Small decoders go in first, as long as all fit; the others are lattices that say why."""
    comparison, _ = pair
    sizes = [4 * v.codes.decoder.size for v in comparison.variants if v.codes and v.codes.decoder]
    assert sizes[0] < sizes[1]
    for room, inside in ((sum(sizes), 2), (sum(sizes) - 1, 1), (sizes[0], 1), (sizes[0] - 1, 0)):
        found = made(comparison, room)
        models = block(found)["models"]
        assert [m["decoder"] is not None for m in models] == [inside > 0, inside > 1]
        assert [m["lattice"] is None for m in models] == [inside > 0, inside > 1]
        assert [m["probes"] is not None for m in models] == [inside > 0, inside > 1]
        for one in found.models[inside:]:
            assert "weights" in one.baked
            assert one.size == (15, 15)


def test_a_decoder_that_takes_long_is_baked() -> None:
    """A page decodes between two frames: one product too many, and it shows a lattice and says why."""
    comparison = shown(trained("vae", 2))
    (variant,) = comparison.variants
    assert variant.codes is not None
    assert variant.codes.decoder is not None
    (layer, *rest) = variant.codes.decoder.layers
    for products, baked in ((10**7, False), (10**7 + 1, True)):
        # As if the first layer were a convolution over so many places.
        rest_of = sum(x.tensors["weight"].numel() for x in rest if "weight" in x.tensors)
        places = (products - rest_of, 1)
        slow = replace(layer, takes=(1, places[0]), tensors={"weight": torch.zeros(1)})
        decoder = replace(variant.codes.decoder, layers=(slow, *rest))
        changed = replace(variant, codes=replace(variant.codes, decoder=decoder))
        (seen,) = made(replace(comparison, variants=(changed,))).models
        assert bool(seen.baked) is baked
        assert ("products an item" in seen.baked) is baked


def test_a_lattice_is_a_picture_of_its_cells(pair: Pair) -> None:
    """Cells in the order of its rows, on the page's scale, within the bytes that it may take."""
    space = pair[0].variants[1].codes
    assert space is not None
    told = block(made(pair[0], 0))["models"][1]["lattice"]
    assert (told["low"], told["high"]) == (
        pytest.approx(list(space.lattice.low)),
        pytest.approx(list(space.lattice.high)),
    )
    pixels = picture(told["pictures"]["source"])
    wanted = (255 * space.lattice.means[4, 11, 0].clamp(0, 1)).round().numpy()
    np.testing.assert_allclose(pixels[32:40, 88:96], wanted, atol=1)
    noise = torch.rand(225, 3, 64, 64)
    painter = Painter(0.0, 1.0, "", strips=False, drawable=True)
    small = packed.atlas(noise, painter, 15, 110_000)
    assert len(base64.b64decode(small["source"].partition(",")[2])) <= 110_000
    assert small["width"] in (8, 12, 16)


class Skip(sfumato.Decoder):
    """No chain of layers."""

    def __init__(self, context: sfumato.Context) -> None:
        super().__init__()
        self.one = nn.Linear(context.z_shape[0], 64)
        self.two = nn.Linear(64, 64)

    def forward(self, z: Tensor, scope: sfumato.Scope) -> Tensor:
        """Around the second layer."""
        del scope
        h = self.one(z).tanh()
        return (h + self.two(h)).view(len(z), 1, 8, 8)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def exotic() -> Model:
    """A model with a decoder that is no chain of layers."""
    registry.register("decoder", "explored-skip", Skip)
    return trained(decoder="explored-skip")


def test_a_decoder_that_is_no_chain_is_baked(exotic: Model) -> None:
    """It says so, points to --live, and has no sliders; live it has them, and neither weights nor lattice."""
    comparison = shown(exotic)
    found = made(comparison)
    assert "no chain of layers" in found.models[0].baked
    assert found.wide is False
    page = rendered(comparison, ROOM)
    assert "sfumato explore RUN --live" in page
    assert "explorer-sliders-0" not in page
    live = made(comparison, live="secret")
    assert live.wide
    assert live.models[0].baked == ""
    told = block(live)
    assert told["live"] == "secret"
    assert (told["models"][0]["decoder"], told["models"][0]["lattice"]) == (None, None)


def test_wide_codes_are_shown_of_fewer_items() -> None:
    """The numbers of one model's codes are limited, and every model shows the same items."""
    model = trained(latent_dim=200)
    found = made(shown(trained(latent_dim=2), model))
    assert found.count == 24_000 // 200
    told = block(found)
    assert told["items"]["count"] == 120
    assert numbers(told["models"][0]["modes"], 2).shape == (120, 2)
    assert numbers(told["models"][1]["axes"], 200).shape == (8, 200)


@pytest.mark.parametrize(
    ("latent_dim", "shape", "masked"),
    [(1, (7,), False), (2, (4, 6), True), (16, (3, 5, 5), False), (2, (300,), False)],
)
def test_any_drawable_data(latent_dim: int, shape: tuple[int, ...], *, masked: bool) -> None:
    """Vectors, matrices, colours, missing values, no labels: a page is made of each."""
    x = torch.randn(40, *shape, generator=torch.Generator().manual_seed(0))
    mask = (torch.rand(40, *shape) > 0.2).float() if masked else None
    split = Split(x, mask=mask)
    splits = sfumato.Splits(split, sfumato.Contract(shape=shape))
    spec = {"model": {"latent_dim": latent_dim, "family": "vae"}, "training": {"epochs": 1}}
    model = sfumato.train(spec, data=splits).model
    found = made(shown(model, data=splits, split="train"))
    told = block(found)
    assert told["items"]["labels"] == []
    assert told["shape"] == list(shape)
    assert told["models"][0]["decoder"] is not None
    assert max(told["items"]["pictures"]["width"], told["items"]["pictures"]["height"]) <= 28
    assert rendered(shown(model, data=splits, split="train"), ROOM)


def test_what_cannot_be_drawn_is_told() -> None:
    """Volumes have no picture: a sentence, and no data."""
    x = torch.rand(30, 2, 4, 4, 4)
    spec = {"model": {"latent_dim": 2, "family": "vae"}, "training": {"epochs": 1}}
    model = sfumato.train(spec, data=x.numpy()).model
    comparison = shown(model, data=sfumato.as_splits(x), split="train")
    assert made(comparison).block is None
    page = rendered(comparison, ROOM)
    assert "are not drawn" in page
    assert "explorer-draw" not in page


def test_conditions_are_classes_or_rows() -> None:
    """Of labels, a class an item to choose from; of vectors, the row of every item."""
    comparison = shown(trained(data={"type": "digits", "condition": "label"}))
    found = made(comparison)
    assert found.classes == tuple("0123456789")
    told = block(found)
    assert comparison.items is not None
    assert comparison.items.label is not None
    assert told["condition"] == {
        "kind": "label", "width": 10, "of": comparison.items.label.tolist(),
    }  # fmt: skip
    assert told["models"][0]["drawn_under"] == list(range(200))
    rows = torch.randn(50, 3)
    split = Split(torch.rand(50, 6), condition=rows)
    splits = sfumato.Splits(split, sfumato.Contract(shape=(6,), condition_dim=3))
    spec = {"model": {"latent_dim": 2, "family": "vae"}, "training": {"epochs": 1}}
    model = sfumato.train(spec, data=splits).model
    found = made(shown(model, data=splits, split="train"))
    told = block(found)
    assert torch.equal(numbers(told["condition"]["rows"], 3), rows)
    assert torch.equal(numbers(told["models"][0]["fixed"]), rows[0])
    # Draws were made under the conditions of the items in turn.
    assert (
        told["models"][0]["drawn_under"][:51]
        == [*range(50), 0][: len(told["models"][0]["drawn_under"])]
    )
    assert "condition of the item" in found.condition


def test_a_baked_model_has_no_choice_of_class() -> None:
    """A lattice was decoded under one class: it says which item's, and nothing can be chosen."""
    comparison = shown(trained(data={"type": "digits", "condition": "label"}))
    found = made(comparison, 0)
    assert (found.classes, found.condition) == ((), "")
    assert block(found)["condition"] is None
    page = " ".join(rendered(comparison, 0).split())
    assert "lattice over the plane, under the condition of the first item:" in page
    assert "explorer-condition" not in page.partition("<script>")[0]


def test_columns_without_codes_are_left_out(pair: Pair) -> None:
    """What shares trainings with another, or failed, has no plane; none at all is no explorer."""
    comparison, _ = pair
    first, second = comparison.variants
    shared = replace(comparison, variants=(first, replace(second, trained_as="m0")))
    heads = [Named("A", "m0", 0), Named("B", "m1", 1)]
    found = explorer.of_comparison(shared, heads, weights=ROOM)
    assert found is not None
    assert [s.model.letter for s in found.models] == ["A"]
    failed = replace(comparison, variants=(replace(first, codes=None),))
    assert explorer.of_comparison(failed, heads[:1], weights=ROOM) is None
    assert explorer.of_comparison(replace(comparison, items=None), heads, weights=ROOM) is None


# ---- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three runs, the last of other data."""
    folder = tmp_path_factory.mktemp("runs")
    for name, data in (
        ("ae", "digits"),
        ("vae", "digits"),
        ("other", {"type": "digits", "condition": "label"}),
    ):
        family = "ae" if name == "ae" else "vae"
        model = {"family": family, "latent_dim": 2, "encoder": MLP, "decoder": MLP}
        training = {"epochs": 1, "device": "cpu", "batch_size": 256}
        sfumato.train({"data": data, "model": model, "training": training}, out=folder / name)
    return folder


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command: its code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert isinstance(caught.value.code, int)
        return caught.value.code, captured.out, captured.err

    return run


Command = Callable[..., tuple[int, str, str]]


def test_explore_writes_a_page(command: Command, runs: Path, tmp_path: Path) -> None:
    """It says what it wrote and how large it is, and writes over nothing unless it is told to."""
    page = tmp_path / "page.html"
    code, out, _ = command("explore", runs / "ae", runs / "vae", "-o", page, "--split", "valid")
    assert (code, out) == (0, f"wrote {page}, {page.stat().st_size / 1e6:.2f} MB\n")
    text = page.read_text(encoding="utf-8")
    assert "<title>ae and vae on digits</title>" in text
    assert str(runs) not in text
    assert "connect-src" not in text
    assert "150 valid items" in text
    page.write_text("mine")
    code, _, err = command("explore", runs / "ae", "-o", page)
    assert code == 1
    assert "exists" in err
    assert page.read_text() == "mine"
    assert command("explore", runs / "ae", "-o", page, "--force")[0] == 0
    assert page.stat().st_size > 1000
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_a_disk_that_is_full_keeps_no_draft(
    runs: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written whole is taken away again, and the error says why."""

    def full(self: Path, content: bytes) -> int:
        self.touch()
        del content
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = command("explore", runs / "vae", "-o", tmp_path / "page.html")
    assert code == 1
    assert "No space left on device" in err
    assert list(tmp_path.iterdir()) == []


def test_explore_names_the_page_itself(
    command: Command, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without -o it is explorer.html here; runs are called as they were named."""
    monkeypatch.chdir(runs)
    monkeypatch.setattr("sfumato_report.explore._DEFAULT", str(tmp_path / "explorer.html"))
    assert command("explore", "vae")[0] == 0
    assert "<bdi>vae</bdi>" in (tmp_path / "explorer.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (("-o", "page.txt"), 2, "should end in .html"),
        (("-o", "none/page.html"), 1, "no folder none"),
        (("--port", "80"), 2, "--port is for --live"),
        (("--no-open",), 2, "--no-open is for --live"),
        (("--live", "-o", "page.html"), 2, "leave -o out"),
        (("--split", "tset", "-o", "page.html"), 1, "no 'tset' split"),
        (("vae", "-o", "page.html"), 1, "named twice"),
        (("other", "-o", "page.html"), 1, "is of other data than"),
        (("none", "-o", "page.html"), 1, "none"),
    ],
)
def test_mistakes_are_told(
    command: Command, runs: Path, monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...], code: int, says: str,
) -> None:  # fmt: skip
    """A wrong option, a wrong place, other data: each has its exit code and its sentence."""
    monkeypatch.chdir(runs)
    found = command("explore", "vae", *more)
    assert found[0] == code
    assert says in found[2]
    assert not (runs / "page.html").exists()


def test_runs_must_share_their_items(runs: Path) -> None:
    """Equal contracts are not enough: the items of the split are compared."""
    found = opened([runs / "ae"], "test")
    assert [name for name, _, _ in found] == ["ae"]
    model, splits = found[0][1:]
    turned = replace(splits, test=Split(splits.get("test").x.flip(0)))
    with pytest.raises(DataError, match="other data"):
        check_same([("a", model, splits), ("b", model, turned)], "test")


def test_the_command_is_listed_as_one_of_ours(command: Command) -> None:
    """``--help`` lists it among sfumato's commands, with what it does."""
    out = command("--help")[1]
    assert re.search(r"^  explore +Explore the codes of runs in a page\.$", out, re.MULTILINE)
    assert "Commands of plugins" not in out


# ---- the server ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(exotic: Model) -> Iterator[Server]:
    """A server of two models, one of them conditional."""
    conditional = trained(data={"type": "digits", "condition": "label"})
    made_ = Server([exotic, conditional])
    made_.page = "<p>the page</p>"
    thread = threading.Thread(target=made_.run)
    thread.start()
    yield made_
    made_.stop()
    thread.join(5)
    assert not thread.is_alive()


def ask(
    server: Server,
    method: str = "POST",
    path: str = "/decode",
    body: Any = None,
    **headers: str | None,
) -> tuple[int, bytes, dict[str, str]]:
    """A request: its status, content and headers. None leaves a header out."""
    sent: dict[str, str | None] = {
        "Host": f"127.0.0.1:{server.port}",
        "X-Sfumato-Token": server.token,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.putrequest(method, path, skip_host=True)
    if content is not None and "Content-Length" not in sent:
        sent["Content-Length"] = str(len(content))
    for name, value in sent.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(content)
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


CODE = {"model": 0, "code": [0.5, -1.0, 2.0]}


def test_what_is_decoded_is_what_the_model_decodes(server: Server) -> None:
    """Bit for bit the model's mean, under the condition that is asked for."""
    exotic, conditional = server.models
    status, content, headers = ask(server, body=CODE, Origin=f"http://127.0.0.1:{server.port}")
    assert status == 200
    with torch.no_grad():
        wanted = exotic.decode(torch.tensor([CODE["code"]])).mean
    assert content == wanted.numpy().astype("<f4").tobytes()
    assert headers["Cache-Control"] == "no-store"
    for label in (2, 7):
        condition = [float(i == label) for i in range(10)]
        status, content, _ = ask(server, body={**CODE, "model": 1, "condition": condition})
        with torch.no_grad():
            wanted = conditional.decode(torch.tensor([CODE["code"]]), condition=label).mean
        assert content == wanted.numpy().astype("<f4").tobytes()


def test_the_page_is_for_who_has_the_token(server: Server) -> None:
    """With it, under either of the server's names, and never cached; without it there is nothing."""
    for host in (f"127.0.0.1:{server.port}", f"localhost:{server.port}"):
        status, content, headers = ask(server, "GET", f"/?token={server.token}", Host=host)
        assert (status, content) == (200, b"<p>the page</p>")
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
    assert server.url == f"http://127.0.0.1:{server.port}/?token={server.token}"
    assert len(server.token) >= 32
    for path in ("/", "/?token=", f"/?token={server.token}x", "/?token=%C3%A9"):
        status, content, _ = ask(server, "GET", path)
        assert status == 403
        assert server.token.encode() not in content


@pytest.mark.parametrize(
    ("status", "change"),
    [
        (403, {"X_Sfumato_Token": None}),
        (403, {"X_Sfumato_Token": "guess"}),
        (403, {"X_Sfumato_Token": "\xe9"}),
        (403, {"Host": "evil.example"}),
        (403, {"Host": None}),
        (403, {"Host": "127.0.0.1"}),
        (403, {"Host": "evil.example:{port}"}),
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": "https://127.0.0.1:{port}"}),
        (403, {"Origin": "http://127.0.0.1:1"}),
        (411, {"Content_Length": "-1"}),
        (411, {"Content_Length": "many"}),
        (413, {"Content_Length": "1048577"}),
        (413, {"Content_Length": "9" * 400}),
    ],
)
def test_foreign_requests_are_refused(
    server: Server, status: int, change: dict[str, str | None]
) -> None:
    """A page of another name, a rebound domain, no token, or no honest length: nothing is decoded."""
    headers = {k: v and v.replace("{port}", str(server.port)) for k, v in change.items()}
    found, content, _ = ask(server, body=json.dumps(CODE).encode(), **headers)  # type: ignore[arg-type]  # names of headers
    assert found == status
    assert b"Traceback" not in content


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 100_000,
        {"code": [0, 0, 0]}, {"model": 0}, {"model": 2, "code": [0, 0, 0]},
        {"model": -1, "code": [0, 0, 0]}, {"model": True, "code": [0, 0, 0]},
        {"model": "0", "code": [0, 0, 0]}, {"model": 0, "code": [0, 0]},
        {"model": 0, "code": "123"}, {"model": 0, "code": [0, 0, "1"]},
        {"model": 0, "code": [0, 0, None]}, {"model": 0, "code": {"0": 1}},
        {"model": 0, "code": [0, 0, 1e300]}, {"model": 0, "code": [0, 0, True]},
        b'{"model": 0, "code": [0, 0, NaN]}', b'{"model": 0, "code": [0, 0, Infinity]}',
        {"model": 0, "code": [0, 0, 0], "condition": [1.0]},
        {"model": 1, "code": [0, 0, 0]}, {"model": 1, "code": [0, 0, 0], "condition": [1]},
        b'{"model": 0, "code": [0, 0, 1' + b"0" * 5000 + b"]}",
    ],
)  # fmt: skip
def test_junk_is_a_bad_request(server: Server, body: Any) -> None:
    """Whatever is sent with the right token: 400, a sentence, and the server goes on."""
    status, content, _ = ask(server, body=body)
    assert status == 400
    assert content
    assert b"Traceback" not in content
    assert ask(server, body=CODE)[0] == 200


def test_there_is_nothing_else(server: Server) -> None:
    """No other path and no other method, with or without the token."""
    assert ask(server, "GET", "http://[")[0] == 400
    for path in ("/etc/passwd", "/decode", "/..", "/index.html"):
        assert ask(server, "GET", f"{path}?token={server.token}")[0] == 404
    assert ask(server, "POST", "/", body=CODE)[0] == 404
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD"):
        assert ask(server, method, "/decode", body=CODE)[0] == 501


def test_nothing_is_logged(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither pages nor requests leave a line, which would hold the token."""
    ask(server, "GET", f"/?token={server.token}")
    ask(server, body=b"{")
    ask(server, "BREW", "/")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_a_port_that_is_taken_is_told(exotic: Model, server: Server) -> None:
    """With the way out."""
    with pytest.raises(sfumato.OutputError, match="port") as caught:
        Server([exotic], server.port)
    assert "--port" in (caught.value.hint or "")


def test_live_prints_one_address_and_ends_with_an_interrupt(
    runs: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page behind it may ask this server and nobody else; Ctrl-C is how it ends, and no failure."""
    seen: dict[str, Any] = {}

    def interrupted(self: Server) -> None:
        seen["page"], seen["url"] = self.page, self.url
        self._http.server_close()
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "run", interrupted)
    code, out, err = command("explore", runs / "vae", "--live", "--no-open")
    assert code == 0
    assert out == f"serving {seen['url']}\n"
    assert err == "Ctrl-C ends it\nended\n"
    assert "connect-src &#39;self&#39;" in seen["page"]
    assert seen["url"].partition("token=")[2] in seen["page"]


def test_a_browser_is_opened_without_the_token_on_its_command_line(
    runs: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other users see command lines: it is handed a file that only this one can read, and that goes away."""
    seen: dict[str, Any] = {}

    def launched(address: str) -> None:
        page = Path(urlsplit(address).path)
        seen.update(
            address=address, page=page, text=page.read_text(), mode=page.parent.stat().st_mode
        )

    def interrupted(self: Server) -> None:
        seen["url"] = self.url
        self._http.server_close()
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "run", interrupted)
    monkeypatch.setattr("click.launch", launched)
    assert command("explore", runs / "vae", "--live")[0] == 0
    assert seen["url"] in seen["text"]
    assert "token" not in seen["address"]
    assert seen["mode"] & 0o077 == 0
    assert not seen["page"].exists()


def test_decoders_that_generate_step_by_step_do_so_live() -> None:
    """Such a decoder is asked for what it generates, as for the lattice."""

    class Steps(sfumato.Decoder):
        """Generates in a way of its own."""

        def __init__(self, context: sfumato.Context) -> None:
            super().__init__()
            self.out = nn.Linear(context.z_shape[0], 64)

        def forward(self, z: Tensor, scope: sfumato.Scope) -> Tensor:
            """Parameters."""
            del scope
            return self.out(z).view(len(z), 1, 8, 8)  # type: ignore[no-any-return]

        def sample(self, z: Tensor, likelihood: object, scope: object) -> Tensor:
            """Its own way."""
            del likelihood, scope
            return torch.full((len(z), 1, 8, 8), 0.25)

    registry.register("decoder", "explored-steps", Steps)
    served = Server([trained(decoder="explored-steps")])
    try:
        answer = served.decode(b'{"model": 0, "code": [0, 0, 0]}')
    finally:
        served._http.server_close()
    assert np.frombuffer(answer, "<f4").tolist() == [0.25] * 64
