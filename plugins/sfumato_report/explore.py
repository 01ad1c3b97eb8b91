"""``sfumato explore``: runs as one page in which their codes can be moved through."""

from __future__ import annotations

import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory

import click

_WEIGHTS = 32 * 2**20
_DEFAULT = "explorer.html"


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False),
              help="The page to write; explorer.html by default.")  # fmt: skip
@click.option(
    "--live", is_flag=True, help="Serve the page to this machine instead, with torch behind it."
)
@click.option("--port", type=click.IntRange(0, 65535), default=None,
              help="Port of --live; a free one by default.")  # fmt: skip
@click.option("--no-open", is_flag=True, help="Open no browser with --live.")
@click.option("--split", default="test", show_default=True, help="train, valid or test.")
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE",
              help="Change the spec, e.g. data.path=… where the data have moved.")  # fmt: skip
@click.option("--device", default=None, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--force", is_flag=True, help="Write over the page.")
def explore(
    runs: tuple[Path, ...],
    output: Path | None,
    port: int | None,
    split: str,
    overrides: tuple[str, ...],
    device: str | None,
    *,
    live: bool,
    no_open: bool,
    force: bool,
) -> None:
    """Explore the codes of runs in a page.

    Move through the plane of codes and see what each model decodes there, several runs side by
    side. The decoders run inside the page, which opens from disk and needs no network. A decoder
    that is no chain of plain layers, or too large for a page, is shown through a lattice of its
    pictures; --live decodes it exactly.
    """
    from sfumato_report.explored_runs import explored, opened, rendered

    if not live and (port is not None or no_open):
        msg = f"{'--port' if port is not None else '--no-open'} is for --live"
        raise click.UsageError(msg)
    if live and output is not None:
        msg = "--live serves the page and writes none: leave -o out"
        raise click.UsageError(msg)
    target = None if live else _new_page(output or Path(_DEFAULT), force=force)
    found = opened(runs, split, overrides, device)
    comparison = explored(found, split)
    if target is not None:
        _write(target, rendered(comparison, _WEIGHTS).encode())
        return
    from sfumato_report.live import Server

    server = Server([model for _, model, _ in found], port or 0)
    server.page = rendered(comparison, _WEIGHTS, live=server.token)
    click.echo(f"serving {server.url}")
    click.echo("Ctrl-C ends it", err=True)
    with TemporaryDirectory(prefix="sfumato-") as private:
        if not no_open:
            _open(server.url, Path(private))
        try:
            server.run()
        except KeyboardInterrupt as stop:
            if type(stop) is not KeyboardInterrupt:  # SIGTERM, which has an exit code of its own
                raise
            click.echo("ended", err=True)


def _open(url: str, private: Path) -> None:
    """Open a browser, by a file that only this user can read: a command line would show the token to all."""
    page = private / "open.html"
    page.write_text(
        f'<!doctype html><meta http-equiv="refresh" content="0; url={url}">\n', "utf-8"
    )
    click.launch(page.as_uri())


def _new_page(path: Path, *, force: bool) -> Path:
    """The file to write, which must not be there yet."""
    from sfumato import OutputError

    if path.suffix != ".html":
        msg = f"{path} should end in .html"
        raise click.UsageError(msg)
    if path.exists() and not force:
        msg = f"{path} exists"
        raise OutputError(msg, hint="name another file: -o FILE, or pass --force")
    if not path.parent.is_dir():
        msg = f"cannot write {path}: no folder {path.parent}"
        raise OutputError(msg, hint="make it first")
    return path


def _write(path: Path, content: bytes) -> None:
    from sfumato import OutputError

    draft = path.with_name(f".{path.name}.tmp")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        msg = f"cannot write {path}: {error.strerror or error}"
        raise OutputError(msg) from error
    click.echo(f"wrote {path}, {len(content) / 1e6:.2f} MB")
