"""Finding parts: names, distributions, and plugins that break."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sfumato import PluginError, SpecError, UnknownPartError, build, load_spec
from sfumato.registry import KINDS, Registry

Tiny = Callable[..., dict[str, Any]]
Install = Callable[..., Registry]
ENCODER = """
from torch import nn

class E(nn.Module):
    def __init__(self, context, *, width: int = 3):
        super().__init__()
        self.linear = nn.Linear(16, width)

    def forward(self, x):
        return self.linear(x.flatten(1))
"""


def test_an_installed_distribution_provides_parts(install: Install, tiny: Tiny) -> None:
    """An entry point is all it takes; the saved spec names the distribution, in either spelling one hash."""
    seen = install("acme-encoders", {"encoder": "tall = acme_encoders:E"}, ENCODER, "3.0")
    entry = seen.get("encoder", "tall")
    assert (entry.reference, entry.version) == ("acme-encoders:tall", "3.0")
    model = build(tiny(encoder={"type": "tall", "width": 5}), (1, 4, 4), "cpu", parts=seen)
    assert model.spec.to_json()["model"]["encoder"] == {"type": "acme-encoders:tall", "width": 5}
    assert model.plan.provenance["encoder"] == {
        "distribution": "acme-encoders",
        "version": "3.0",
        "target": "acme_encoders:E",
    }
    hashes = {
        load_spec(tiny(encoder=name), parts=seen).hash
        for name in ("tall", "acme-encoders:tall", "Acme_Encoders:tall")
    }
    assert len(hashes) == 1


@pytest.mark.parametrize(
    "source", ["import nonesuch", "raise SystemExit(3)", "1 / 0", "E = 5", "F = 1", "def :"]
)
def test_a_broken_plugin_breaks_only_what_names_it(
    install: Install, tiny: Tiny, source: str
) -> None:
    """Whatever its import does, other specs load, and a spec that names it is told whose fault it is."""
    seen = install("bad-plug", {"encoder": "bad = bad_plug:E"}, source)
    load_spec(tiny(), parts=seen)
    assert "bad" in {e.name for e in seen.of_kind("encoder")}
    with pytest.raises(PluginError, match="bad-plug"):
        seen.get("encoder", "bad").load()
    with pytest.raises(SpecError, match="K302 encoder 'bad' of bad-plug") as caught:
        load_spec(tiny(encoder="bad", decoder="mpl"), parts=seen)
    assert len(caught.value.problems) == 2


def test_first_party_names_cannot_be_taken(install: Install, tiny: Tiny) -> None:
    """A stranger's ``mlp`` is not ours, is never imported for it, and is reached by its full name alone."""
    seen = install("evil", {"encoder": "mlp = evil:E"}, "raise SystemExit('imported')")
    assert seen.get("encoder", "mlp").distribution == "sfumato"
    assert seen.get("encoder", "evil:mlp").distribution == "evil"
    assert load_spec(tiny(encoder="mlp"), parts=seen).model.encoder.type == "mlp"
    with pytest.raises(UnknownPartError, match="cannot be replaced"):
        seen.register("encoder", "mlp", dict)


def test_two_strangers_on_one_name_must_be_told_apart(install: Install) -> None:
    """An ambiguous name is an error that says what to write; full names, and ours, stay clear."""
    install("acme", {"encoder": "tall = acme:E"}, ENCODER)
    seen = install("beta-co", {"encoder": "tall = beta_co:E"}, ENCODER)
    with pytest.raises(UnknownPartError, match="several plugins") as caught:
        seen.get("encoder", "tall")
    assert caught.value.hint == "write one of acme:tall, beta-co:tall"
    assert seen.get("encoder", "beta-co:tall").distribution == "beta-co"
    assert Registry("acme").get("encoder", "tall").distribution == "acme"


@pytest.mark.parametrize(
    ("allow", "names"),
    [
        ("all", {"acme", "beta-co"}),
        ("none", set()),
        ("", set()),
        ("acme", {"acme"}),
        ("Acme, Beta_Co", {"acme", "beta-co"}),
    ],
)
def test_the_environment_says_what_is_allowed(
    install: Install, monkeypatch: pytest.MonkeyPatch, allow: str, names: set[str]
) -> None:
    """SFUMATO_PLUGINS acts before any import, and never on first-party parts."""
    install("acme", {"encoder": "tall = acme:E", "hooks": "h = acme"}, ENCODER)
    install("beta-co", {"encoder": "wide = beta_co:E"}, ENCODER)
    monkeypatch.setenv("SFUMATO_PLUGINS", allow)
    seen = Registry()
    found = {e.distribution for e in seen}
    assert found & {"acme", "beta-co"} == names
    assert "sfumato" in found
    assert bool([h for h in seen.hooks() if h.distribution == "acme"]) == ("acme" in names)


@pytest.mark.parametrize(
    ("requires", "fits"),
    [
        ((), True),
        (("sfumato",), True),
        (("torch>=99",), True),
        (("sfumato>=0.1,<0.2",), True),
        (("sfumato-extras<0.1",), True),
        (("sfumato<0.1; extra == 'test'",), True),
        (("not a requirement <<",), True),
        (("sfumato>=0.2",), False),
        (("torch", "Sfumato[report] (<0.1)"), False),
        (("sfumato>=0.1", "sfumato<0.1"), False),
    ],
)
def test_a_plugin_says_which_sfumato_it_is_made_for(
    install: Install, tiny: Tiny, requires: tuple[str, ...], *, fits: bool
) -> None:
    """Its own requirement is the version of the interfaces; it is seen before anything is imported."""
    source = ENCODER if fits else "raise SystemExit('imported')"
    seen = install("acme", {"encoder": "tall = acme:E"}, source, requires=requires)
    if fits:
        assert load_spec(tiny(encoder="tall"), parts=seen)
        return
    with pytest.raises(SpecError, match=r"K302 acme 1\.0 is made for sfumato[<>].*this is 0"):
        load_spec(tiny(encoder="tall"), parts=seen)


def test_a_distribution_can_be_left_out(install: Install) -> None:
    """Whatever else is allowed; a name that is no plugin's is refused, for a typo would let it in."""
    install("acme", {"encoder": "tall = acme:E", "hooks": "h = acme"}, ENCODER)
    seen = install("beta-co", {"encoder": "wide = beta_co:E"}, ENCODER)
    assert {"acme", "beta-co"} <= {e.distribution for e in seen}
    seen.deny("Acme")
    assert {e.distribution for e in seen} & {"acme", "beta-co"} == {"beta-co"}
    assert not list(seen.hooks())
    assert "acme" not in {e.distribution for e in seen.extended({})}
    for name, near in (("beta_cu", "beta-co"), ("sfumato", "sfumato plugins")):
        with pytest.raises(UnknownPartError, match="no plugin is called") as caught:
            seen.deny(name)
        assert near in (caught.value.hint or "")


def test_a_registry_is_extended_without_being_changed(install: Install) -> None:
    """The new one has the parts of the old one, installed and local, and its own."""
    seen = install("acme", {"encoder": "tall = acme:E"}, ENCODER)
    seen.register("encoder", "mine", dict)
    more = seen.extended({("likelihood", "other"): list})
    assert more.get("likelihood", "other").load() is list
    assert {"tall", "mine", "mlp"} <= {e.name for e in more.of_kind("encoder")}
    assert "other" not in {e.name for e in seen.of_kind("likelihood")}
    with pytest.raises(UnknownPartError, match="cannot be replaced"):
        seen.extended({("likelihood", "gaussian"): list})


def test_no_distribution_can_pass_for_what_is_registered_by_hand(install: Install) -> None:
    """Its name is reserved: it would else be allowed whatever was said."""
    install("local", {"encoder": "tall = local:E", "hooks": "h = local"}, "raise SystemExit(1)")
    for allow in ("all", "none"):
        seen = Registry(allow)
        assert not [e for e in (*seen, *seen.hooks()) if e.distribution == "local"]


def test_registering_by_hand_is_local_and_replaceable(parts: Registry) -> None:
    """A registered part is named ``local:``; the same name again replaces it; unknown kinds are refused."""
    parts.register("encoder", "mine", dict)
    assert parts.get("encoder", "mine").reference == "local:mine"
    parts.register("encoder", "mine", list)
    assert parts.get("encoder", "local:mine").load() is list
    for kind, name in (("encodre", "mine"), ("encoder", "a:b"), ("encoder", "")):
        with pytest.raises(UnknownPartError):
            parts.register(kind, name, dict)


def test_an_unknown_name_lists_what_there_is(parts: Registry) -> None:
    """Near names are offered, else all; dotted paths and other kinds' names are no names."""
    with pytest.raises(UnknownPartError, match="unknown loss") as caught:
        parts.get("loss", "zzzzz")
    assert "beta_elbo, elbo, reconstruction" in (caught.value.hint or "")
    for name in ("sfumato_networks.mlp:MlpEncoder", "os.system", "mlp:", "vae", "acme:mlp", ""):
        with pytest.raises(UnknownPartError):
            parts.get("encoder", name)
    assert parts.get("encoder", "sfumato:mlp").name == "mlp"


@pytest.mark.parametrize("backport", [False, True])
def test_an_installation_with_broken_metadata_is_passed_over(
    install: Install,
    tmp_path: Path,
    backport: bool,  # noqa: FBT001
) -> None:
    """A left-over folder, one without a version, and text in another encoding hinder nobody.

    Nor when some package has imported the backport of the module that reads them, which takes its
    place in the whole process.
    """
    if backport:
        pytest.importorskip("importlib_metadata")
    site = tmp_path / "site-packages"
    (site / "empty-1.0.dist-info").mkdir()
    bare = site / "bare-1.0.dist-info"
    bare.mkdir()
    (bare / "METADATA").write_text("Name: bare\n")
    (bare / "entry_points.txt").write_text("[sfumato.encoder]\nbare = nowhere:E\n")
    for number, name in enumerate(("METADATA", "entry_points.txt")):
        latin = site / f"latin{number}-1.0.dist-info"
        latin.mkdir()
        (latin / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: latin{number}\nVersion: 1.0\n"
        )
        (latin / name).write_bytes(b"Name: latin\nAuthor: J\xfcrgen\n")
    seen = install("acme", {"encoder": "tall = acme:E"}, ENCODER)
    assert seen.get("encoder", "tall").version == "1.0"
    assert seen.get("encoder", "bare").version == "0"


def test_groups_that_are_no_kinds_are_none_of_ours(install: Install) -> None:
    """Entry points of unknown groups are ignored, and every kind may be empty or not."""
    seen = install("acme", {"nonsense": "x = acme:E", "encoder": "tall = acme:E"}, ENCODER)
    assert {e.kind for e in seen} <= set(KINDS)
    assert [e.name for e in seen if e.distribution == "acme"] == ["tall"]


def test_every_first_party_part_loads_and_has_a_schema(parts: Registry) -> None:
    """No entry point of ours dangles, and every one says what it is."""
    from sfumato.options import config_model, describe

    ours = list(parts)
    assert {e.kind for e in ours} == set(KINDS)
    for entry in ours:
        assert config_model(entry)
        assert describe(entry), entry


def test_an_unknown_name_says_why_it_is_unknown(install: Install) -> None:
    """It is not installed, left out, or was to be registered by hand: each has its own remedy."""
    install("acme", {"encoder": "tall = acme:E"}, ENCODER)
    for allow, reference, says in (
        ("none", "tall", "acme has one, and SFUMATO_PLUGINS or --no-plugin leaves it out"),
        ("all", "other-co:tall", "no plugin other-co is installed here"),
        ("all", "local:tall", "register it first: sfumato.register, or --plugin FILE"),
        ("all", "acme:tal", 'did you mean "tall"?'),
    ):
        with pytest.raises(UnknownPartError) as caught:
            Registry(allow).get("encoder", reference)
        assert says in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a/b", "é\x1b"])
def test_a_name_that_specs_could_not_say_is_refused(parts: Registry, name: str) -> None:
    """Letters, digits, dots, dashes and underscores make names."""
    with pytest.raises(UnknownPartError, match="cannot be the name of a part"):
        parts.register("encoder", name, dict)
