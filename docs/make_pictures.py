"""Make the pictures and the table of numbers that README and the tutorials show.

    python docs/make_pictures.py

trains a dozen small models on the digits that come with sfumato: about two minutes on one CPU core. It writes
``docs/_static/*.png``, and the table of ``docs/tutorials/from-ae-to-vae.md`` in each language.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import sfumato

STATIC = Path(__file__).parent / "_static"
FAMILIES = {"AE": "ae", "VAE": "vae", "beta-VAE, beta = 4": "beta_vae"}
BETAS = (0.1, 0.5, 1, 2, 4, 8)
WHITE, INK, GREY = (255, 255, 255), (30, 30, 30), (170, 170, 170)
COLOURS = (
    (230, 25, 75), (60, 140, 60), (200, 170, 0), (0, 90, 200), (245, 130, 48),
    (145, 30, 180), (0, 170, 170), (220, 50, 230), (120, 90, 40), (0, 0, 0),
)  # fmt: skip
FONT = ImageFont.load_default(15)
SIDE = 6
GAPS = 0.3
TUTORIALS = Path(__file__).parent / "tutorials"
TABLES = {
    # Of each language: the heads of the first two columns, and the word for a figure without a value.
    "from-ae-to-vae.md": ("model", "−log p(x given z)", "not defined"),
    "from-ae-to-vae.zh.md": ("模型", "−log p(x\\|z)", "未定义"),
}
BEGIN, END = "<!-- numbers -->", "<!-- end of numbers -->"


def main() -> None:
    """Train, then draw."""
    torch.set_num_threads(1)
    models = {name: trained(family) for name, family in FAMILIES.items()}
    overview(models)
    fitted_prior(models)
    flat = {n: trained(FAMILIES[n], latent_dim=2, epochs=300) for n in ("AE", "VAE")}
    codes(flat)
    plane(flat["VAE"])
    classes()
    missing()
    weights = {f"β = {b:g}": spec({"type": "beta_vae", "beta": b}) for b in BETAS}
    numbers(sfumato.compare({"AE": spec("ae"), **weights}, seeds=[0], device="cpu"))


def spec(family: object, latent_dim: int = 16, epochs: int = 100) -> dict[str, object]:
    """The spec of one picture's model."""
    model = {"family": family, "latent_dim": latent_dim}
    return {"data": "digits", "model": model, "training": {"epochs": epochs, "device": "cpu"}}


def trained(family: object, latent_dim: int = 16, epochs: int = 100) -> sfumato.Model:
    """A trained model."""
    return sfumato.train(spec(family, latent_dim, epochs)).model


def overview(models: Mapping[str, sfumato.Model]) -> None:
    """The data and what each model makes of them; below, other data and what each model generates."""
    x, n = test_digits(), SIDE**2
    above = [x[:n], *(m.reconstruct(x[:n]) for m in models.values())]
    below = [x[100 : 100 + n], *(m.sample(n, seed=0) for m in models.values())]
    panels = [[grid(cell, SIDE, 3) for cell in row] for row in (above, below)]
    save("overview", table(panels, ["data", *models], ["reconstructed", "sampled"]))


def fitted_prior(models: Mapping[str, sfumato.Model]) -> None:
    """The autoencoder decodes codes of two sources; the VAE those of its prior."""
    n, ae = SIDE**2, models["AE"]
    with torch.no_grad():
        z = ae.encode(digits().seen("train").x).mode
        normal = torch.distributions.MultivariateNormal(z.mean(0), torch.cov(z.T))
        torch.manual_seed(0)
        fitted = ae.decode(normal.sample((n,))).mean
    made = {
        "AE, z from N(0, I)": ae.sample(n, seed=0),
        "AE, z from a fit": fitted,
        "VAE, z from N(0, I)": models["VAE"].sample(n, seed=0),
    }
    save("fitted_prior", table([[grid(x, SIDE, 3) for x in made.values()]], list(made), [""]))


def codes(models: Mapping[str, sfumato.Model], size: int = 340) -> None:
    """Two-dimensional codes of the test digits, coloured by class: points, or ellipses of one deviation."""
    label, panels = digits().get("test").label, []
    assert label is not None
    for model in models.values():
        q_z = model.encode(test_digits())
        z = q_z.mode.detach()
        sigma = q_z.dist.stddev.detach() if q_z.dist is not None else torch.full_like(z, 0.035)
        panel = Image.new("RGB", (2 * size, 2 * size), WHITE)
        draw = ImageDraw.Draw(panel, "RGBA")
        for radius in (1, 2, 3):
            ellipse(draw, (0, 0), (radius, radius), 2 * size, outline=GREY)
        for at, extent, digit in zip(z.tolist(), sigma.tolist(), label.tolist(), strict=True):
            ellipse(draw, at, extent, 2 * size, fill=(*COLOURS[digit], 110))
        draw.rectangle((0, 0, 2 * size - 1, 2 * size - 1), outline=GREY, width=2)
        panels.append(panel.resize((size, size), Image.Resampling.LANCZOS))
    legend = table([panels], [f"{name}: two dimensions" for name in models], [""])
    draw = ImageDraw.Draw(legend)
    for digit, colour in enumerate(COLOURS):
        draw.text((20 + 14 * digit, 40), str(digit), fill=colour, font=FONT, anchor="mm")
    save("codes", legend)  # a palette would make the colours of some digits one


def ellipse(
    draw: ImageDraw.ImageDraw,
    at: Sequence[float],
    extent: Sequence[float],
    size: int,
    **how: object,
) -> None:
    """An ellipse in code space, which reaches from −4.2 to 4.2."""
    (a, b), (u, v) = (
        ((c / 4.2 + 1) * size / 2 for c in (at[0], -at[1])),
        (e / 4.2 * size / 2 for e in extent),
    )
    draw.ellipse((a - u, b - v, a + u, b + v), **how)  # type: ignore[arg-type]


def plane(model: sfumato.Model, side: int = 13) -> None:
    """What the decoder makes of the square from −2.5 to 2.5 in code space."""
    steps = torch.linspace(-2.5, 2.5, side)
    b, a = torch.meshgrid(steps.flip(0), steps, indexing="ij")
    made = model.decode(torch.stack([a, b], -1).view(-1, 2)).mean.detach()
    save("plane", grid(made, side, 4, 1))


def classes(columns: int = 12) -> None:
    """Samples of every class, one row each; the codes are those of the column."""
    data = {"type": "digits", "condition": "label"}
    model = sfumato.train({**spec("vae", 8, 60), "data": data}).model
    rows = [model.sample(columns, seed=0, condition=digit) for digit in range(10)]
    save("classes", grid(torch.cat(rows), columns, 4))


def missing(count: int = 16) -> None:
    """Test digits with holes, as a model that never saw one without fills them in, and complete."""
    keyed, splits = torch.Generator().manual_seed(0), digits()

    def holed(split: sfumato.Split) -> sfumato.Split:
        mask = torch.rand(split.x.shape, generator=keyed) > GAPS
        return sfumato.Split(split.x, mask=mask)

    named = {name: holed(split) for name, split in splits.named()}
    holes = sfumato.Splits(contract=splits.contract, **named)
    model = sfumato.train({**spec("vae", 8, 60), "data": None}, holes).model
    seen = holes.seen("test").take(slice(0, count))
    rebuilt = model.reconstruct(seen.x, mask=seen.mask)
    filled = torch.where(seen.mask, seen.x, rebuilt)
    save("missing", grid(torch.cat([seen.x, filled, test_digits()[:count]]), count, 5))


def numbers(comparison: sfumato.Comparison) -> None:
    """The table of figures in every language, as Markdown."""
    for page, (model, reconstruction, undefined) in TABLES.items():
        heads = f"| {model} | {reconstruction} | KL | ELBO | NLL | MSE |"
        rows = [row(variant, undefined) for variant in comparison.variants]
        replace_table(TUTORIALS / page, "\n".join([heads, "|---|--:|--:|--:|--:|--:|", *rows]))


def row(variant: sfumato.Variant, undefined: str) -> str:
    """The figures of one model."""
    figures = {name: summary.mean for name, summary in variant.figures.items()}
    cells = [figures[name] for name in ("reconstruction", "kl", "elbo", "nll")]
    shown = [undefined if c is None else f"{c:.1f}".replace("-", "−") for c in cells]
    return f"| {variant.name} | {' | '.join(shown)} | {figures['mse']:.4f} |"


def replace_table(page: Path, shown: str) -> None:
    """Put a table in the place that a page has for it."""
    text = page.read_text(encoding="utf-8")
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        raise SystemExit(f"{page} has no place for the table")
    page.write_text(f"{before}{BEGIN}\n\n{shown}\n\n{END}{after}", encoding="utf-8")


def digits() -> sfumato.Splits:
    """The digits."""
    return sfumato.load_splits(spec("vae"))


def test_digits() -> Tensor:
    """The test digits as models see them, ``(297, 1, 8, 8)`` in [0, 1]."""
    return digits().seen("test").x


def grid(items: Tensor, columns: int, pixel: int, gap: int = 1) -> Image.Image:
    """A grid of pictures."""
    png = sfumato.picture_grid(items, columns=columns, pixel=pixel, gap=gap)
    return Image.open(io.BytesIO(png)).convert("RGB")


def table(
    panels: Sequence[Sequence[Image.Image]], names: Sequence[str], sides: Sequence[str]
) -> Image.Image:
    """Panels in rows and columns, with headings."""
    width, height = panels[0][0].size
    left, top, gap = (115 if any(sides) else 10), 26, 10
    picture = Image.new(
        "RGB", (left + len(names) * (width + gap), top + len(panels) * (height + gap)), WHITE
    )
    draw = ImageDraw.Draw(picture)
    for column, name in enumerate(names):
        at = left + column * (width + gap) + width / 2
        draw.text((at, top / 2), name, fill=INK, font=FONT, anchor="mm")
    for row, side in enumerate(sides):
        y = top + row * (height + gap)
        draw.text((left - 10, y + height / 2), side, fill=INK, font=FONT, anchor="rm")
        for column, panel in enumerate(panels[row]):
            picture.paste(panel, (left + column * (width + gap), y))
    return picture


def save(name: str, picture: Image.Image) -> None:
    """Write a picture."""
    picture.save(STATIC / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
