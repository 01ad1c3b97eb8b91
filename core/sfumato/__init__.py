"""sfumato: assemble, train, compare and ship latent-variable generative models from interchangeable parts.

Importing this imports neither torch nor pydantic nor any plugin; a name is imported when it is
first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfumato.artifact import load as load
    from sfumato.artifact import read_header as read_header
    from sfumato.artifact import save as save
    from sfumato.assembly import build as build
    from sfumato.code_space import CodeSpace as CodeSpace
    from sfumato.code_space import Lattice as Lattice
    from sfumato.codes import Density as Density
    from sfumato.codes import Point as Point
    from sfumato.comparison import compare as compare
    from sfumato.data import Contract as Contract
    from sfumato.data import Factor as Factor
    from sfumato.data import Split as Split
    from sfumato.data import Splits as Splits
    from sfumato.data import as_splits as as_splits
    from sfumato.data import conditioned_on_labels as conditioned_on_labels
    from sfumato.datasets import load_splits as load_splits
    from sfumato.distributions import ShapedBernoulli as ShapedBernoulli
    from sfumato.distributions import ShapedNormal as ShapedNormal
    from sfumato.errors import ArtifactError as ArtifactError
    from sfumato.errors import DataError as DataError
    from sfumato.errors import DeviceError as DeviceError
    from sfumato.errors import DiskFullError as DiskFullError
    from sfumato.errors import Incompatible as Incompatible
    from sfumato.errors import LockedError as LockedError
    from sfumato.errors import MissingExtraError as MissingExtraError
    from sfumato.errors import MissingPluginError as MissingPluginError
    from sfumato.errors import NoDensityError as NoDensityError
    from sfumato.errors import NonFiniteError as NonFiniteError
    from sfumato.errors import OutOfMemoryError as OutOfMemoryError
    from sfumato.errors import OutputError as OutputError
    from sfumato.errors import PluginError as PluginError
    from sfumato.errors import Problem as Problem
    from sfumato.errors import ResumeError as ResumeError
    from sfumato.errors import SfumatoError as SfumatoError
    from sfumato.errors import SpecError as SpecError
    from sfumato.errors import SupportError as SupportError
    from sfumato.errors import UnknownPartError as UnknownPartError
    from sfumato.evaluation import Evaluation as Evaluation
    from sfumato.evaluation import Metrics as Metrics
    from sfumato.evaluation import evaluate as evaluate
    from sfumato.extras import import_extra as import_extra
    from sfumato.figures import Difference as Difference
    from sfumato.figures import Figure as Figure
    from sfumato.figures import Summary as Summary
    from sfumato.foreign_text import visible_text as visible_text
    from sfumato.header import Header as Header
    from sfumato.hooks import hookimpl as hookimpl
    from sfumato.interfaces import Code as Code
    from sfumato.interfaces import Context as Context
    from sfumato.interfaces import Decoder as Decoder
    from sfumato.interfaces import Encoder as Encoder
    from sfumato.interfaces import Features as Features
    from sfumato.interfaces import Likelihood as Likelihood
    from sfumato.interfaces import Posterior as Posterior
    from sfumato.interfaces import Prior as Prior
    from sfumato.interfaces import Sampler as Sampler
    from sfumato.interfaces import Scope as Scope
    from sfumato.interfaces import Shape as Shape
    from sfumato.intervals import Interval as Interval
    from sfumato.model import Model as Model
    from sfumato.opening import open_run as open_run
    from sfumato.passes import Loss as Loss
    from sfumato.passes import LossOut as LossOut
    from sfumato.passes import Pass as Pass
    from sfumato.pictures import picture_grid as picture_grid
    from sfumato.randomness import key as key
    from sfumato.randomness import keyed_generator as keyed_generator
    from sfumato.randomness import keyed_global as keyed_global
    from sfumato.randomness import permuted as permuted
    from sfumato.registry import register as register
    from sfumato.resolve import load_spec as load_spec
    from sfumato.results import Comparison as Comparison
    from sfumato.results import Pictures as Pictures
    from sfumato.results import Variant as Variant
    from sfumato.results import VariantRun as VariantRun
    from sfumato.results import View as View
    from sfumato.row_files import Shard as Shard
    from sfumato.run import Run as Run
    from sfumato.sampler_files import save_sampler as save_sampler
    from sfumato.sampler_files import saved_sampler as saved_sampler
    from sfumato.samplers import fit_sampler as fit_sampler
    from sfumato.schema import json_schema as json_schema
    from sfumato.spec import Spec as Spec
    from sfumato.stored import Stored as Stored
    from sfumato.subject import Subject as Subject
    from sfumato.training import resume as resume
    from sfumato.training import train as train
    from sfumato.unrolled import Layer as Layer
    from sfumato.unrolled import Unrolled as Unrolled
    from sfumato.unrolled import unroll as unroll
    from sfumato.views import decoded as decoded
    from sfumato.views import view as view

_NAMES = {
    "artifact": "load read_header save",
    "assembly": "build",
    "comparison": "compare",
    "code_space": "CodeSpace Lattice",
    "codes": "Density Point",
    "data": "Contract Factor Split Splits as_splits conditioned_on_labels",
    "datasets": "load_splits",
    "distributions": "ShapedBernoulli ShapedNormal",
    "errors": (
        "ArtifactError DataError DeviceError DiskFullError Incompatible LockedError "
        "MissingExtraError MissingPluginError NoDensityError NonFiniteError OutOfMemoryError "
        "OutputError PluginError Problem ResumeError SfumatoError SpecError SupportError "
        "UnknownPartError"
    ),
    "evaluation": "Evaluation Metrics evaluate",
    "extras": "import_extra",
    "foreign_text": "visible_text",
    "header": "Header",
    "hooks": "hookimpl",
    "interfaces": "Code Context Decoder Encoder Features Likelihood Posterior Prior Sampler Scope Shape",
    "model": "Model",
    "opening": "open_run",
    "passes": "Loss LossOut Pass",
    "pictures": "picture_grid",
    "randomness": "key keyed_generator keyed_global permuted",
    "registry": "register",
    "resolve": "load_spec",
    "figures": "Difference Figure Summary",
    "intervals": "Interval",
    "results": "Comparison Pictures Variant VariantRun View",
    "row_files": "Shard",
    "run": "Run",
    "sampler_files": "save_sampler saved_sampler",
    "samplers": "fit_sampler",
    "schema": "json_schema",
    "spec": "Spec",
    "stored": "Stored",
    "subject": "Subject",
    "training": "resume train",
    "unrolled": "Layer Unrolled unroll",
    "views": "decoded view",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted([*_HOME, "__version__"])  # noqa: PLE0605 - a list


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from sfumato.registry import own_version

        value: Any = own_version()
    elif name in _HOME:
        module = importlib.import_module(f"sfumato.{_HOME[name]}")
        value = getattr(module, name)
    else:
        msg = f"module 'sfumato' has no attribute {name!r}"
        raise AttributeError(msg)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
