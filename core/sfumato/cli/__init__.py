"""The command line.

Commands are imported when they are called: ``--help`` imports neither torch nor pydantic.
"""

from __future__ import annotations

import importlib
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any, cast

import click

from sfumato.allocator import keep_blocks
from sfumato.cli import options, trust
from sfumato.errors import PluginError, SfumatoError
from sfumato.registry import Entry, own_commands, registry

_COMMANDS = {
    "list": ("catalogue:list_parts", "List installed parts."),
    "describe": ("catalogue:describe", "Explain a part, a spec or a run."),
    "plugins": ("plugins:plugins", "List plugins, their parts, and what is wrong with them."),
    "doctor": ("doctor:doctor", "Report versions, devices and health, for a bug report."),
    "new": ("new:new", "Write a plugin's project to start from."),
    "check": ("check:check", "Try a plugin's parts against the interfaces of their kinds."),
    "schema": ("catalogue:schema", "Print the JSON Schema of specs, installed plugins included."),
    "init": ("specs:init", "Write a spec to start from."),
    "validate": ("specs:validate", "Check specs without training."),
    "train": ("training:train", "Train a model."),
    "resume": ("training:resume", "Go on with a training that was stopped."),
    "evaluate": ("evaluation:evaluate", "Measure a trained model."),
    "fit-sampler": ("samplers:fit_sampler", "Fit a source of codes to a trained model."),
    "sample": ("generation:sample", "Generate data from a trained model."),
    "reconstruct": ("generation:reconstruct", "Encode and decode data."),
    "interpolate": ("generation:interpolate", "Walk between two data in code space."),
    "encode": ("generation:encode", "Write the codes of data."),
    "compare": ("comparison:compare", "Train models side by side and report."),
}
_WIDE = 80
_INTERRUPTED = 130
_TERMINATED = 143


class _Lazy(click.Group):
    """A group that imports a command when it is called, not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [*_COMMANDS, *_of_plugins()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name in _COMMANDS:
            module, _, name = _COMMANDS[cmd_name][0].partition(":")
            command = getattr(importlib.import_module(f"sfumato.cli.{module}"), name)
        elif cmd_name in {name.rpartition(":")[2] for name in _of_plugins()} or ":" in cmd_name:
            command = _loaded(registry.get("command", cmd_name))
        else:
            return None
        return cast("click.Command", command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            own = [(e.name, _loaded(e).get_short_help_str(_WIDE)) for e in own_commands()]
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()] + own)
        own_names = {name for name, _ in own}
        if others := {n: t for n, t in _of_plugins().items() if n not in own_names}:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(
                    [(options.inert(n), options.inert(t)) for n, t in others.items()]
                )


def _of_plugins() -> dict[str, str]:
    """Commands of plugins by name, with where they come from. Ours cannot be taken over."""
    found = registry.of_kind("command")
    names = [entry.name for entry in found]
    own = {*_COMMANDS, *(e.name for e in own_commands())}
    return {
        e.name if names.count(e.name) == 1 and e.name not in own else e.reference: (
            f"of {e.distribution} {e.version}"
        )
        for e in found
    }


def _loaded(entry: Entry) -> click.Command:
    command = entry.load()
    if not isinstance(command, click.Command):
        msg = f"{entry.location} of {entry.distribution} is no click.Command"
        raise PluginError(msg)
    return command


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001
    if wanted:
        from sfumato.registry import own_version

        click.echo(f"sfumato {own_version()}")
        ctx.exit()


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version,
    help="Show the version.",
)  # fmt: skip
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks of errors.")
@click.option("--no-plugin", metavar="DIST", expose_value=False,
              help="Leave out a plugin; may be repeated.")  # fmt: skip
@click.option("--plugin", metavar="FILE", expose_value=False,
              help="Run a Python file that registers parts; may be repeated.")  # fmt: skip
def cli() -> None:
    """Assemble, train, compare and ship autoencoder-family generative models.

    Start with: sfumato compare ae vae beta_vae
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and end the process with the exit code that README documents."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    warnings.showwarning = _show_warning
    signal.signal(signal.SIGTERM, _terminate)
    hangup = getattr(signal, "SIGHUP", None)  # a closed terminal; nohup has it ignored
    if hangup is not None and signal.getsignal(hangup) is signal.SIG_DFL:
        signal.signal(hangup, _terminate)
    keep_blocks()
    try:
        # These may stand anywhere: who looks for a traceback repeats a command and appends --debug.
        rest = trust.apply([a for a in arguments if a != "--debug"])
        code = cli.main(rest, prog_name="sfumato", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        # click raises an Abort of its own from what stopped it
        terminated = isinstance(error.__cause__ or error, _Terminated)
        click.echo("terminated" if terminated else "interrupted", err=True)
        sys.exit(_TERMINATED if terminated else _INTERRUPTED)
    except SfumatoError as error:
        if debug:
            raise
        options.say(str(error), err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        options.say(f"K900 {type(error).__name__}: {error}", err=True)
        click.echo("   this is a mistake of sfumato or of a plugin; --debug shows where", err=True)
        sys.exit(1)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, or a terminal that was closed: a run saves what it has, as after an interrupt."""


def _terminate(_: int, __: object) -> None:
    raise _Terminated


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    options.say(f"warning: {message}", err=True)
