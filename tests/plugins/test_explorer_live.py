"""The server behind a live page: where it listens, what it takes, and that it decodes one code at a time."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sfumato
from sfumato import Context, Decoder, Model, Scope
from sfumato.registry import Registry
from sfumato_report.live import Server

CALLERS, ASKED = 6, 4


class Slow(Decoder):
    """Takes its time, and notes how many calls run at once."""

    counting = threading.Lock()
    running = 0
    most = 0

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.out = nn.Linear(context.z_shape[0], context.param_shape[0])

    def forward(self, z: Tensor, scope: Scope) -> Tensor:
        """Linear; others have time to come in between."""
        del scope
        with Slow.counting:
            Slow.running += 1
            Slow.most = max(Slow.most, Slow.running)
        time.sleep(0.01)
        with Slow.counting:
            Slow.running -= 1
        return self.out(z)  # type: ignore[no-any-return]


def built(parts: Registry, decoder: Any) -> Model:
    """An untrained model of five numbers with a code of two."""
    spec = {"model": {"family": "vae", "latent_dim": 2, "decoder": decoder}}
    return sfumato.build(spec, (5,), "cpu", support="real", parts=parts)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of two slow models and a linear one."""
    parts = Registry("none")
    parts.register("decoder", "slow", Slow)
    made = Server(
        [*(built(parts, "slow") for _ in range(2)), built(parts, {"type": "mlp", "hidden": []})]
    )
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.stop()
    thread.join(5)
    assert not thread.is_alive()


def ask(server: Server, model: int, code: Any, **more: Any) -> tuple[int, bytes]:
    """The status and the content of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    body = json.dumps({"model": model, "code": code, **more})
    connection.request("POST", "/decode", body, {"X-Sfumato-Token": server.token})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_only_this_machine_is_listened_to(server: Server) -> None:
    """The socket is bound to 127.0.0.1: no other address of this machine has anybody behind the port."""
    assert server._http.socket.family == socket.AF_INET
    assert server._http.socket.getsockname() == ("127.0.0.1", server.port)
    # All of 127.0.0.0/8 is this machine: whoever listens on every address answers at 127.0.0.2 too.
    for address, answers in (("127.0.0.1", True), ("127.0.0.2", False)):
        with socket.socket() as caller:
            caller.settimeout(5)
            assert (caller.connect_ex((address, server.port)) == 0) is answers


def test_one_code_is_decoded_at_a_time(server: Server) -> None:
    """However many ask, and of whichever model: evaluation mode and keyed noise are shared by all."""
    start = threading.Barrier(CALLERS)

    def caller(index: int) -> list[tuple[int, list[float], int, bytes]]:
        start.wait(5)
        asked = [(i % 2, [float(index), float(i)]) for i in range(ASKED)]
        return [(model, code, *ask(server, model, code)) for model, code in asked]

    Slow.most = 0
    with ThreadPoolExecutor(CALLERS) as callers:
        answers = [found for rows in callers.map(caller, range(CALLERS)) for found in rows]
    assert len(answers) == CALLERS * ASKED
    assert Slow.most == 1
    for model, code, status, content in answers:
        assert status == 200
        with torch.no_grad():
            wanted = server.models[model].decode(torch.tensor([code])).mean
        assert content == wanted.numpy().astype("<f4").tobytes()


@pytest.mark.parametrize("value", [1e30, -1e30])
def test_codes_end_below_a_limit(server: Server, value: float) -> None:
    """1e30 and what is further is refused; the number next to it is decoded, and to finite numbers."""
    status, content = ask(server, 2, [0.0, value])
    assert (status, content) == (400, b"a code is 2 finite numbers")
    status, content = ask(server, 2, [0.0, float(np.nextafter(value, 0.0))])
    assert status == 200
    assert np.isfinite(np.frombuffer(content, "<f4")).all()


@pytest.mark.parametrize("name", ["code", "condition"])
@pytest.mark.parametrize("value", [None, 5, 0.5, True, {}, {"0": 1, "1": 2}, "", "12"])
def test_what_is_no_list_is_a_bad_request(server: Server, name: str, value: object) -> None:
    """A code and a condition are lists; whatever else JSON has is refused, not tripped over."""
    status, content = ask(server, 2, **{"code": [0.0, 0.0], name: value})
    assert status == 400
    assert re.fullmatch(rb"a (code|condition) is \d finite numbers", content)
