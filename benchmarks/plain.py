"""Baseline: plain FastAPI with ONNX Runtime in the handler. Graph, codecs and thread count are the service's.

Run with `uvicorn --factory benchmarks.plain:create`; GLIMPSE_MODELS names the model repository.
"""

import cv2
import onnxruntime as ort
from fastapi import FastAPI, Request, Response

from benchmarks.served import newest
from service.media.decoding import decode
from service.media.encoding import encode
from service.runtime.repository import read_manifest
from service.settings import Settings
from service.tasks import stn


def create() -> FastAPI:
    """Return the application."""
    cv2.setNumThreads(1)
    folder = newest(Settings().models, "stn-affine")
    manifest = read_manifest(folder)
    options = ort.SessionOptions()
    # By default, every process would run one thread per core, which spins while it waits for work.
    options.intra_op_num_threads = Settings().graph_threads
    session = ort.InferenceSession(str(folder / str(manifest.graphs["rectify"].onnx)), options)
    app = FastAPI()

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/stn/rectify")
    async def rectify(request: Request) -> Response:
        picture = decode(await request.body(), request.headers.get("content-type"))
        square = stn.network_input(picture, manifest)
        rectified, probabilities = session.run(["rectified", "probabilities"], {"picture": square[None]})
        label = int(probabilities[0].argmax())
        headers = {"x-label": str(label), "x-confidence": f"{probabilities[0, label]:.4f}"}
        return Response(encode(rectified[0]), media_type="image/png", headers=headers)

    return app
