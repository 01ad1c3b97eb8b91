"""What the gallery shows: commands, the spec files they read, the page they write, and what to see in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Recipe:
    """One page of the gallery.

    Args:
        name: Of its files, and of its place in the gallery.
        title: Its heading.
        see: What to see there, in Markdown.
        commands: Command lines of sfumato, run in order in one folder.
        page: The page that they write.
        picture: Section of the page that the thumbnail shows.
        alt: What the thumbnail shows, in words.
        specs: Spec files that the commands read, by name.
    """

    name: str
    title: str
    see: str
    commands: tuple[str, ...]
    page: str
    picture: str
    alt: str
    specs: Mapping[str, object] = field(default_factory=dict)


RECIPES = (
    Recipe(
        name="families",
        title="Three families on digits",
        see="""
The comparison of README. The autoencoder reconstructs best and its samples from N(0, I) are noise; a
mixture fitted to its codes afterwards makes digits of the same decoder (**Samples**). The spectra of KL
show how few of the β-VAE's 16 units carry anything (**Units**). With three seeds the table has intervals
and no marks, and the findings say so.
""",
        commands=("sfumato compare ae vae beta_vae --seeds 3",),
        page="comparison/report.html",
        picture="samples",
        alt=(
            "Samples of four columns: noise of the autoencoder, and digits of its "
            "mixture, of the VAE and of the beta-VAE."
        ),
    ),
    Recipe(
        name="two-dimensions",
        title="Two dimensions: all of a code is seen",
        see="""
With two units nothing hides behind the plane: **Codes** shows each code whole, with the prior's deviations
dashed. Two numbers tell digits apart but roughly, so reconstructions are blurred and classes overlap, and
interpolations cross other digits on their way (**Interpolations**). Here the codes of both models lie where
the prior does; with 16 units those of the autoencoder do not.
""",
        commands=(
            "sfumato compare ae vae --seeds 1 --set model.latent_dim=2 --set training.epochs=200",
        ),
        page="comparison/report.html",
        picture="codes",
        alt=(
            "Two scatter plots of codes of digits, coloured by class, around the "
            "dashed circles of the prior."
        ),
    ),
    Recipe(
        name="collapse",
        title="A collapse",
        see="""
A weight of 64 on the divergence, and codes that carry next to nothing: a finding says *Collapse* and what
to try, the KL of every unit lies at 0 (**Units**), all reconstructions are one blur, and so are all
samples. Its aggregate posterior fits the prior perfectly: that alone makes no good model.
""",
        commands=("sfumato compare vae collapsed.json --seeds 1 --set training.epochs=40",),
        page="comparison/report.html",
        picture="reconstructions",
        alt=(
            "Ten test digits, their reconstructions by a VAE, and ten times the "
            "same blur by the collapsed model."
        ),
        specs={
            "collapsed.json": {
                "data": "digits",
                "model": {"family": {"type": "beta_vae", "beta": 64}, "latent_dim": 16},
            }
        },
    ),
    Recipe(
        name="sprites",
        title="Sprites in the explorer",
        see="""
A VAE with small convolutional networks, trained for seconds, with its decoder inside the page. Tick *decode
the whole plane*, which the thumbnail shows: shapes turn and stretch from place to place, and on the way
they come apart. Then draw from the prior: with six units and 2,000 items most draws fall where no item was
encoded.
""",
        commands=(
            "sfumato train sprites.json --out sprites",
            "sfumato explore sprites -o explorer.html",
        ),
        page="explorer.html",
        picture="explorer",
        alt=(
            "The explorer: a plane of codes tiled with what the model decodes "
            "there, white shapes that move about."
        ),
        specs={
            "sprites.json": {
                "data": {"type": "sprites", "train": 2000, "valid": 200, "test": 500},
                "model": {
                    "family": "vae",
                    "latent_dim": 6,
                    "encoder": {"type": "conv", "channels": [8, 16, 16, 32]},
                    "decoder": {"type": "conv", "channels": [32, 16, 16, 8]},
                    "likelihood": "bernoulli",
                },
                "training": {
                    "epochs": 20,
                    "batch_size": 64,
                    "optimizer": {"type": "adam", "lr": 3e-3},
                },
            }
        },
    ),
    Recipe(
        name="mixture",
        title="A mixture on the codes of a VAE",
        see="""
`vae+gmm` adds a column: the same trained VAE, with codes from a mixture fitted to its own instead of from
the prior. Fréchet distances fall, for the aggregate posterior is not quite the prior; so does recall, for a
mixture of ten is no perfect fit either. Reconstruction, ELBO and NLL are those of the model, and so equal
in both columns.
""",
        commands=("sfumato compare vae+gmm --seeds 1",),
        page="comparison/report.html",
        picture="samples",
        alt=(
            "Samples of one VAE twice: with codes from its prior, and with codes from a mixture."
        ),
    ),
)
