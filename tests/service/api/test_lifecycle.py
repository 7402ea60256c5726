"""From start to shutdown: loading, ready, draining, stopped; and settings and files that are refused at the start."""

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest

from export import manifest
from service import exit_codes
from service.app import Glimpse
from service.engine.engine import Engine
from service.settings import Settings
from service.termination import Termination

Problem = Callable[[httpx.Response, int, str], dict[str, Any]]
Serve = Callable[..., AbstractAsyncContextManager[tuple[Glimpse, httpx.AsyncClient]]]
Launch = Callable[..., AbstractContextManager[tuple[str, subprocess.Popen[str], Callable[[str], None]]]]

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def refused(**settings: str) -> subprocess.CompletedProcess[str]:
    """Run `glimpse serve` with settings that it must refuse."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GLIMPSE_")}
    return subprocess.run(
        [sys.executable, "-m", "glimpse", "serve"],
        env={**inherited, "GLIMPSE_PORT": "0", **{f"GLIMPSE_{name}": value for name, value in settings.items()}},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_service_that_is_still_loading_is_alive_but_not_ready(repository: Path, problem: Problem) -> None:
    """Before the models are there every request for one is a 503, not a 404 or a 500."""

    async def scenario() -> list[httpx.Response]:
        transport = httpx.ASGITransport(Glimpse(Settings(models=repository)))
        async with httpx.AsyncClient(transport=transport, base_url="http://glimpse") as client:
            assert (await client.get("/livez")).status_code == 200
            assert (await client.get("/models")).json() == {"models": []}
            return [
                await client.get("/readyz"),
                await client.get("/draw/generate"),
                await client.post("/stn/rectify?model=stn-circular"),
                await client.get("/ntm/copy?format=sse"),
            ]

    for response in asyncio.run(scenario()):
        assert "loaded" in problem(response, 503, "not-ready")["detail"]
        assert response.headers["retry-after"] == "1"


def test_service_that_has_loaded_some_models_is_not_ready(repository: Path, problem: Problem) -> None:
    """A model whose engine does not run yet gets no requests."""

    async def scenario() -> httpx.Response:
        from service.app import _load_and_verify
        from service.runtime.base import RuntimeOptions

        app = Glimpse(Settings(models=repository))
        app._serve(_load_and_verify(repository / "ntm-copy" / "1", "onnxruntime", RuntimeOptions("cpu", 1)))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://glimpse") as client:
            return await client.get("/ntm/copy")

    problem(asyncio.run(scenario()), 503, "not-ready")


def test_draining_service_finishes_what_it_has_and_takes_no_more(serve: Serve, problem: Problem) -> None:
    """From the first moment of draining new requests are 503, and those that were admitted are answered."""

    async def scenario() -> tuple[httpx.Response, list[httpx.Response]]:
        async with serve() as (app, client):
            admitted = asyncio.create_task(client.get("/draw/generate?steps=64&count=64&format=npz&seed=1"))
            while not app._admission._in_hand:
                await asyncio.wait([admitted], timeout=0.001)
            drained = asyncio.create_task(app.drain())
            await asyncio.sleep(0)
            late = [
                await client.get(path)
                for path in ("/readyz", "/draw/generate", "/ntm/copy", "/draw/generate?format=sse")
            ]
            assert (await client.get("/livez")).status_code == 200
            await drained
            return await admitted, late

    admitted, late = asyncio.run(scenario())

    assert admitted.status_code == 200
    for response in late:
        assert "shutting down" in problem(response, 503, "not-ready")["detail"]


def test_answer_that_a_shutdown_does_not_wait_for_is_a_503(serve: Serve, problem: Problem) -> None:
    """A cancelled request gets a problem document, with the same status and code as requests that come later."""

    async def endless() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async def scenario() -> httpx.Response:
        async with serve() as (app, client):
            asked = asyncio.create_task(client.post("/ntm/copy", content=endless()))
            while not app._admission._in_hand:
                await asyncio.wait([asked], timeout=0.001)
            asked.cancel()
            return await asked

    response = asyncio.run(scenario())

    assert "the service stopped" in problem(response, 503, "not-ready")["detail"]
    assert response.headers.keys() >= {"x-request-id", "server-timing", "retry-after"}


def test_hanging_engine_is_noticed_while_a_sick_gpu_does_not_answer(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the metrics of the process blocks nothing else, and is repeated after a failure."""
    monkeypatch.setattr("service.app.SUPERVISION_SECONDS", 0.001)
    monkeypatch.setattr(Termination, "take_over", lambda _: None)  # signals are the test run's own
    app = Glimpse(Settings(models=repository))
    is_asked_again, answers = threading.Event(), threading.Event()
    readings = iter([1])

    def figures() -> None:
        if next(readings, None):
            raise OSError
        is_asked_again.set()
        answers.wait(60)

    async def scenario() -> int:
        exits: asyncio.Queue[int] = asyncio.Queue()
        messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        monkeypatch.setattr(app.metrics, "observe_process", figures)
        monkeypatch.setattr(os, "_exit", exits.put_nowait)
        await messages.put({"type": "lifespan.startup"})
        life = asyncio.create_task(app({"type": "lifespan"}, messages.get, asyncio.Queue[Any]().put))
        assert await asyncio.to_thread(is_asked_again.wait, 30), "nobody reads the figures, or not again"
        while app.catalogue.not_ready_because is not None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        monkeypatch.setattr(Engine, "is_beyond_repair", lambda _: True)
        try:
            return await asyncio.wait_for(exits.get(), 30)
        finally:
            answers.set()
            await messages.put({"type": "lifespan.shutdown"})
            await life

    assert asyncio.run(scenario()) == exit_codes.BEYOND_REPAIR


def test_process_that_was_frozen_goes_on(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its engine seems to hang, since time has passed while nothing ran; at the next check it is healthy."""
    monkeypatch.setattr("service.app.SUPERVISION_SECONDS", 0.001)
    looks = Counter[str]()
    exits: list[int] = []

    def is_beyond_repair(engine: Engine) -> bool:
        looks[engine.name] += 1
        return looks[engine.name] % 2 == 1

    async def scenario() -> None:
        async with Glimpse(Settings(models=repository)).running() as loading:
            await loading
            monkeypatch.setattr(Engine, "is_beyond_repair", is_beyond_repair)
            monkeypatch.setattr(os, "_exit", exits.append)
            while not looks or min(looks.values()) < 4:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(scenario(), 60))

    assert not exits


def test_process_that_supervises_imports_no_framework() -> None:
    """It serves no requests, and should start quickly."""
    program = "import sys, service.server; sys.exit('fastapi' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


def test_several_processes_share_a_port_and_their_metrics(launch: Launch) -> None:
    """Whichever process is scraped, the requests of all of them are counted; and all of them exit."""
    with launch(GLIMPSE_WORKERS="2") as (url, *_):
        for _ in range(40):
            assert httpx.get(f"{url}/ntm/copy?length=1").status_code == 200  # a connection of its own
        text = httpx.get(f"{url}/metrics").text

    assert 'glimpse_requests_total{code="200",model="ntm-copy",route="/ntm/copy"} 40.0' in text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_port_of_another_service_is_left_to_it(launch: Launch, repository: Path, workers: str) -> None:
    """Processes share the port with each other, but a second service does not start."""
    with launch(GLIMPSE_WORKERS=workers) as (url, *_):
        ended = refused(MODELS=str(repository), WORKERS=workers, PORT=url.rsplit(":", 1)[1])

    assert ended.returncode != 0
    assert "address already in use" in ended.stderr.lower()


@pytest.mark.skipif(HAS_CUDA, reason="this ONNX Runtime could have a GPU")
def test_device_that_is_not_there_stops_the_start_with_one_line(repository: Path) -> None:
    """If CUDA is chosen, the service does not fall back to the CPU."""
    ended = refused(MODELS=str(repository), DEVICE="cuda")

    assert ended.returncode != 0
    (line,) = [line for line in ended.stderr.splitlines() if "CRITICAL" in line]
    assert "device cuda was asked for" in line
    assert "Traceback" not in ended.stderr


def tamper_with(path: Path) -> None:
    """Change a single bit of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_file_that_was_tampered_with_stops_the_start_with_one_line(repository: Path, tmp_path: Path) -> None:
    """A single changed bit is refused, with the file's name."""
    shutil.copytree(repository / "ntm-copy", tmp_path / "ntm-copy")
    tamper_with(tmp_path / "ntm-copy" / "1" / "model.onnx")

    ended = refused(MODELS=str(tmp_path))

    assert ended.returncode != 0
    (line,) = [line for line in ended.stderr.splitlines() if "CRITICAL" in line]
    assert "model.onnx has sha256" in line
    assert "Traceback" not in ended.stderr


def test_process_that_cannot_replace_another_leaves_it(launch: Launch, repository: Path, tmp_path: Path) -> None:
    """The old process goes on serving, although a new one would refuse the model."""
    shutil.copytree(repository / "ntm-copy", tmp_path / "ntm-copy")
    with launch(GLIMPSE_MODELS=str(tmp_path), GLIMPSE_WORKERS="2") as (url, process, await_line):
        tamper_with(tmp_path / "ntm-copy" / "1" / "model.onnx")
        process.send_signal(signal.SIGHUP)
        await_line("CRITICAL")
        await_line("aborting the restart")

        # Each on a connection of its own, to one process or the other.
        answers = [httpx.get(f"{url}/ntm/copy?length=1").status_code for _ in range(8)]

    assert answers == [200] * 8


def test_processes_are_replaced_one_after_the_other(launch: Launch) -> None:
    """A new process has loaded its models before an old one stops, so that no request finds the service starting."""
    with launch(GLIMPSE_WORKERS="2") as (_, process, await_line):
        process.send_signal(signal.SIGHUP)
        for line in ("ready: ", "Terminated child", "Waiting for child") * 2:
            await_line(line)


@pytest.mark.parametrize("damage", ["name", "golden"])
def test_damaged_version_is_refused_and_an_older_one_serves(
    launch: Launch, repository: Path, tmp_path: Path, damage: str
) -> None:
    """One bad artifact, with wrong outputs or another version in its manifest, does not take down an older one."""
    shutil.copytree(repository / "ntm-copy", tmp_path / "ntm-copy")
    newer = tmp_path / "ntm-copy" / "2"
    shutil.copytree(repository / "ntm-copy" / "1", newer)
    if damage == "golden":
        tensors = dict(np.load(newer / manifest.TENSORS_FILE))
        tensors["golden/step/probabilities"] = 1 - tensors["golden/step/probabilities"]
        np.savez(newer / manifest.TENSORS_FILE, **tensors)
        described = manifest.read(tmp_path / "ntm-copy" / "1")
        files = {name: manifest.describe(newer / name) for name in described.files}
        manifest.write(described.model_copy(update={"version": 2, "files": files}), newer)

    with launch(GLIMPSE_MODELS=str(tmp_path)) as (url, *_):
        answer = httpx.get(f"{url}/ntm/copy?length=1")
        assert httpx.get(f"{url}/readyz").status_code == 200
        newest = httpx.get(f"{url}/ntm/copy?version=2")

    assert (answer.status_code, answer.json()["version"]) == (200, 1)
    assert newest.status_code == 404


def test_setting_out_of_range_stops_the_start_with_one_line(repository: Path) -> None:
    """The line names the variable and the value."""
    ended = refused(MODELS=str(repository), DRAW__SLOTS="0")

    assert ended.returncode != 0
    assert "GLIMPSE_DRAW__SLOTS" in ended.stderr
    assert "'0'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_repository_without_models_stops_the_start_with_one_line(tmp_path: Path, workers: str) -> None:
    """The service does not start with an empty folder, and a supervisor does not go on without its processes."""
    ended = refused(MODELS=str(tmp_path), WORKERS=workers)

    assert ended.returncode == 3
    assert "holds no model" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_serving_does_not_import_torch() -> None:
    """With the ONNX runtime the whole application is composed without PyTorch, which a plain install lacks."""
    assert importlib.util.find_spec("torch") is not None
    code = (
        "import sys, service.app, service.server, service.settings; "
        "service.app.Glimpse(service.settings.Settings()); print('torch' in sys.modules)"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert ended.stdout.strip() == "False"
