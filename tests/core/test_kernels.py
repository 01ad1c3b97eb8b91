"""oneDNN's products in linear layers: the same numbers, only where they are faster, and on record."""

from __future__ import annotations

import copy
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

import sfumato
from sfumato import kernels
from sfumato.run import environment

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"
)


@pytest.fixture(autouse=True)
def _own_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is chosen yet, and the choice of a test ends with it."""
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    monkeypatch.setattr(kernels, "_chosen", None)


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The products of oneDNN are chosen, however fast it is."""
    monkeypatch.setenv(kernels.VARIABLE, kernels.ONEDNN)
    assert kernels.chosen() == kernels.ONEDNN


@needs_onednn
@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("shape", [(7, 33), (2, 3, 16), (5,), (1, 1), (0, 4), (3, 0, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_and_gradients_are_torchs(shape: tuple[int, ...], bias: bool) -> None:  # noqa: FBT001
    """Value, gradients, and gradients of gradients agree with torch's in double precision."""
    torch.manual_seed(0)
    layer = nn.Linear(shape[-1], 6, bias=bias)
    exact = copy.deepcopy(layer).double()
    kernels.install(nn.Sequential(layer))
    assert type(layer) is kernels.OnednnLinear
    found = []
    for linear, dtype in ((layer, torch.float32), (exact, torch.float64)):
        x = torch.linspace(-1, 1, max(1, torch.Size(shape).numel())).to(dtype)
        x = x[: torch.Size(shape).numel()].view(shape).requires_grad_()
        leaves = [x, *linear.parameters()]
        made = linear(x)
        first = torch.autograd.grad(made.tanh().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), leaves)
        found.append([made, *first, *second])
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), wanted, rtol=1e-4, atol=1e-4)


@needs_onednn
@pytest.mark.usefixtures("onednn")
def test_a_layer_stays_what_it_is(tmp_path: Any, grey: Tensor, tiny: Callable[..., Any]) -> None:
    """Its weights, its name and what isinstance says; other kinds of layers are left alone."""
    model = sfumato.build(tiny(), (1, 4, 4), "cpu")
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert {type(m) for m in layers} == {kernels.OnednnLinear}
    assert repr(layers[0]).startswith("Linear(")
    normed = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    before = type(normed)
    kernels.install(nn.Sequential(normed))
    assert type(normed) is before
    run = sfumato.train(tiny(), grey, tmp_path / "run")
    again = sfumato.load(tmp_path / "run", "cpu")
    assert list(run.model.state_dict()) == list(again.state_dict())
    assert torch.equal(run.model.reconstruct(grey), again.reconstruct(grey))


@needs_onednn
@pytest.mark.usefixtures("onednn")
def test_transforms_and_other_types_are_left_to_torch() -> None:
    """vmap, jvp, autocast and double precision work as with torch's own layer."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    x = torch.randn(5, 4)
    wanted = F.linear(x, layer.weight, layer.bias)
    kernels.install(nn.Sequential(layer))
    torch.testing.assert_close(torch.func.vmap(layer)(x), wanted)
    value, tangent = torch.func.jvp(layer, (x,), (torch.ones_like(x),))[:2]
    torch.testing.assert_close(value, wanted)
    torch.testing.assert_close(tangent, layer.weight.sum(1).expand(5, 3))
    with torch.autograd.forward_ad.dual_level():
        dual = layer(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))
        assert torch.autograd.forward_ad.unpack_dual(dual).tangent is not None
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.float64


@needs_onednn
def test_a_run_says_which_products_it_used(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, grey: Tensor, tiny: Callable[..., Any]
) -> None:
    """The environment of a run names them, and both runs are one but for rounding."""
    losses = []
    for name in (kernels.TORCH, kernels.ONEDNN):
        monkeypatch.setattr(kernels, "_chosen", None)
        monkeypatch.setenv(kernels.VARIABLE, name)
        run = sfumato.train(tiny(), grey, tmp_path / name)
        assert environment(torch.device("cpu"))["linear"] == name
        assert f'"linear": "{name}"' in (tmp_path / name / "run.json").read_text()
        losses.append(run.metrics[-1]["train"]["objective"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("ratio", "wanted"), [(0.5, "onednn"), (0.69, "onednn"), (0.75, "torch"), (0.95, "torch")]
)
def test_only_a_clear_gain_is_taken(
    monkeypatch: pytest.MonkeyPatch, ratio: float, wanted: str
) -> None:
    """Near equality the choice would differ from run to run, and so would the last bits."""
    monkeypatch.setattr(kernels, "_agrees", lambda: True)
    monkeypatch.setattr(kernels, "_ratio", lambda: ratio)
    assert kernels.chosen() == wanted


@pytest.mark.parametrize("fault", ["missing", "wrong", "biased"])
def test_an_operator_that_changed_is_not_used(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """One that is not there, or computes something else, falls back without a word; even if asked for."""

    def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if fault == "missing":
            msg = "no such operator"
            raise AttributeError(msg)
        made = F.linear(x, weight, bias)
        return made * 1.001 if fault == "wrong" else made + (0 if bias is None else bias)

    monkeypatch.setattr(kernels, "_product", product)
    monkeypatch.setattr(kernels, "_ratio", lambda: 0.1)
    assert kernels.chosen() == kernels.TORCH
    kernels.choose(kernels.ONEDNN)
    assert kernels.chosen() == kernels.TORCH


@needs_onednn
def test_the_choice_does_not_depend_on_the_default_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that computes in double precision by default tries single precision all the same."""
    monkeypatch.setenv(kernels.VARIABLE, kernels.ONEDNN)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert kernels.chosen() == kernels.ONEDNN
        assert kernels._ratio() > 0
    finally:
        torch.set_default_dtype(before)


@needs_onednn
def test_another_process_hands_its_choice_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one process measured the others take without measuring."""
    monkeypatch.setattr(kernels, "_ratio", lambda: pytest.fail("measured"))
    for name in (kernels.ONEDNN, kernels.TORCH):
        kernels.choose(name)
        assert kernels.chosen() == name


def test_only_the_command_line_changes_the_allocator() -> None:
    """Importing the library and training with it leave malloc alone; the command line sets it."""
    code = (
        "import sys, sfumato, sfumato.training\n"
        "assert 'sfumato.allocator' not in sys.modules\n"
        "from sfumato.allocator import keep_blocks\n"
        "print(keep_blocks())"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == str(sys.platform == "linux")


def test_the_command_line_keeps_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so do workers, which train for it."""
    from sfumato import cli, worker

    # Who tests must still hear of signals afterwards.
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for module in (cli, worker):
        kept: list[str] = []
        monkeypatch.setattr(module, "keep_blocks", lambda kept=kept: kept.append("kept"))
        monkeypatch.setattr(worker, "_standard_streams", lambda: sys.exit(0))
        with pytest.raises(SystemExit):
            cli.main(["--version"]) if module is cli else worker.main()
        assert kept == ["kept"]
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is before


def test_another_choice_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable is not taken for none."""
    monkeypatch.setenv(kernels.VARIABLE, "mkl")
    with pytest.raises(sfumato.DataError, match="SFUMATO_LINEAR = 'mkl'"):
        kernels.chosen()
