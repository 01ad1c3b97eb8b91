"""A page with torch behind it, served to this machine alone.

Who can reach a local port can be any page that the browser has open, and any program: so the page is
handed out for a random token only, requests must carry it in a header that no foreign page can set,
and the names in ``Host`` and ``Origin`` must be this server's own, which no rebound domain has.
"""

from __future__ import annotations

import json
import math
import secrets
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import torch
from torch import Tensor

from sfumato import Model, OutputError, decoded

_LONGEST = 1 << 20
_WAIT = 20
_HERE = "127.0.0.1"
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Refused(Exception):  # noqa: N818 - reads as what happened
    """A request that is not answered, with its status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _asked(model: Model, code: Sequence[float], condition: Sequence[float]) -> Tensor:
    """What a model decodes at the code that a request names, ``(*X)`` on the CPU."""
    width, given = math.prod(model.plan.z_shape), model.contract.condition_dim
    if not _numbers(code, width):
        raise Refused(400, f"a code is {width} finite numbers")
    if not _numbers(condition, given):
        raise Refused(400, f"a condition is {given} finite numbers")
    under = torch.tensor([list(condition)]) if condition else None
    return decoded(model, torch.tensor([list(code)]), under)[0].float().cpu()


def _numbers(values: object, count: int) -> bool:
    """Whether these are so many finite numbers; true and false are none."""
    return (
        isinstance(values, Sequence)
        and not isinstance(values, str)
        and len(values) == count
        and all(type(v) in (int, float) and abs(v) < 1e30 for v in values)  # noqa: PLR2004
    )


class Server:
    """Serves one page on 127.0.0.1, and decodes for it.

    Args:
        models: The models, in the order of the page.
        port: Port; 0 takes a free one.

    Raises:
        OutputError: The port is taken.
    """

    def __init__(self, models: Sequence[Model], port: int = 0) -> None:
        self.models = models
        self.page = ""
        self.token = secrets.token_urlsafe(24)
        # One at a time: evaluation mode and keyed noise are state that requests would share.
        self._lock = threading.Lock()
        try:
            self._http = ThreadingHTTPServer(
                (_HERE, port), type("Own", (_Handler,), {"owner": self})
            )
        except OSError as error:
            msg = f"cannot serve on port {port}: {error.strerror or error}"
            raise OutputError(msg, hint="leave --port out to take a free one") from error
        self._http.daemon_threads = True
        self.port: int = self._http.server_address[1]

    @property
    def url(self) -> str:
        """Where the page is, with the token that opens it."""
        return f"http://{_HERE}:{self.port}/?token={self.token}"

    def run(self) -> None:
        """Serve until :meth:`stop` or an interrupt."""
        try:
            self._http.serve_forever(poll_interval=0.2)
        finally:
            self._http.server_close()

    def stop(self) -> None:
        """End :meth:`run`, called from another thread."""
        self._http.shutdown()

    def allows(self, token: str) -> bool:
        """Whether a token is the server's."""
        return secrets.compare_digest(token.encode(), self.token.encode())

    @property
    def names(self) -> set[str]:
        """What requests may call this server."""
        return {f"{_HERE}:{self.port}", f"localhost:{self.port}"}

    def decode(self, body: bytes) -> bytes:
        """Float32 numbers, little-endian, of what a request asks for."""
        try:
            asked = json.loads(body)
            model, code, condition = asked["model"], asked["code"], asked.get("condition", [])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise Refused(400, 'not of the form {"model": 0, "code": [...]}') from None
        if type(model) is not int or not 0 <= model < len(self.models):
            raise Refused(400, f"there are models 0 to {len(self.models) - 1}")
        with self._lock:
            made = _asked(self.models[model], code, condition)
        return made.contiguous().numpy().astype("<f4").tobytes()


class _Handler(BaseHTTPRequestHandler):
    owner: Server
    timeout = _WAIT
    server_version, sys_version = "sfumato", ""

    def do_GET(self) -> None:
        self._answer(self._page)

    def do_POST(self) -> None:
        self._answer(self._decode)

    def _page(self) -> tuple[str, bytes]:
        self._check_host()
        try:
            place = urlsplit(self.path)
        except ValueError:
            raise Refused(400, "the address is none") from None
        if place.path != "/":
            raise Refused(404, "there is one page, /")
        self._check_token(parse_qs(place.query).get("token", [""])[0])
        return "text/html; charset=utf-8", self.owner.page.encode()

    def _decode(self) -> tuple[str, bytes]:
        self._check_host()
        if self.path != "/decode":
            raise Refused(404, "requests go to /decode")
        self._check_token(self.headers.get("X-Sfumato-Token", ""))
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{name}" for name in self.owner.names}:
            raise Refused(403, "this page is not the server's")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise Refused(411, "say how long the request is")
        if len(length) > len(str(_LONGEST)) or int(length) > _LONGEST:
            raise Refused(413, "the request is too long")
        return "application/octet-stream", self.owner.decode(self.rfile.read(int(length)))

    def _check_host(self) -> None:
        if self.headers.get("Host", "") not in self.owner.names:
            raise Refused(403, "this server answers to its own name only")

    def _check_token(self, token: str) -> None:
        if not self.owner.allows(token):
            raise Refused(403, "open the address that the command printed")

    def _answer(self, make: Callable[[], tuple[str, bytes]]) -> None:
        try:
            kind, content = make()
            status = 200
        except Refused as refused:
            status, kind, content = refused.status, "text/plain", str(refused).encode()
        except (ConnectionError, TimeoutError):  # the sender has gone
            return
        except Exception as error:  # noqa: BLE001 - of whatever part; the page says that it failed
            status, kind, content = 500, "text/plain", type(error).__name__.encode()
        try:
            self._send(status, kind, content)
        except (ConnectionError, TimeoutError):  # the reader has gone
            return

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: a log would hold the token."""
