# One recipe, two images:
#   docker build --tag glimpse:cpu .                  ONNX Runtime alone, without PyTorch
#   docker build --tag glimpse:gpu --target gpu .     ONNX Runtime for CUDA, and PyTorch for the TorchScript runtime
# A builder without BuildKit makes every stage up to its target: in this order, `--target cpu` never meets CUDA.

FROM python:3.11-slim-bookworm AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore ORT_DISABLE_TELEMETRY=1
# Without pip of its own: nothing is ever installed into a running container.
RUN python -m venv --without-pip /opt/glimpse
# The dependencies first, with an empty Glimpse: a change of its code then does not install them again. In a folder of its
# own, so that nothing of the empty one gets into the build of the real one.
WORKDIR /dependencies
COPY pyproject.toml constraints.txt ./
RUN touch glimpse.py README.md LICENSE

FROM builder AS builder-cpu
RUN python -m pip --python /opt/glimpse/bin/python install --no-compile --constraint constraints.txt '.[cpu]'
WORKDIR /src
COPY . .
RUN python -m pip --python /opt/glimpse/bin/python install --no-compile --no-deps .
# The image is read-only, so bytecode is made now or at every start; only for what a start imports, which is a quarter
# of it. The tests that libraries ship are as large again; ONNX Runtime's tools for making models, NumPy's for building
# extensions, and stubs for type checkers take another 13 MB, and ONNX Runtime's library for programs in C 29 MB: the
# module for Python has the runtime in itself.
RUN cd / && /opt/glimpse/bin/python -c \
      'import glimpse, service.server, service.app, service.runtime.onnxruntime, uvicorn.protocols.http.httptools_impl' \
 && cd /opt/glimpse/lib/python3.11/site-packages \
 && rm -rf onnxruntime/transformers onnxruntime/quantization onnxruntime/tools numpy/f2py numpy/distutils \
      onnxruntime/capi/libonnxruntime.so.* \
 && find . -type d -name tests -prune -exec rm -r {} + \
 && find . -name '*.pyi' -delete

FROM python:3.11-slim-bookworm AS runtime
LABEL org.opencontainers.image.title="Glimpse" \
      org.opencontainers.image.description="Inference service for STN, DRAW and the neural Turing machine" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin glimpse
# ONNX Runtime (1.29 and later) reports its use to its makers unless told not to; a container calls nobody.
ENV PATH=/opt/glimpse/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GLIMPSE_HOST=0.0.0.0 \
    GLIMPSE_PORT=8000
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Not urllib.request, which would send the probe through whatever proxy the container is given.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-c", "import http.client, os; \
probe = http.client.HTTPConnection('127.0.0.1', int(os.environ['GLIMPSE_PORT']), timeout=2); \
probe.request('GET', '/readyz'); \
raise SystemExit(probe.getresponse().status != 200)"]
ENTRYPOINT ["glimpse"]
CMD ["serve"]

FROM runtime AS cpu
COPY --from=builder-cpu /opt/glimpse /opt/glimpse

# The CUDA libraries come as wheels, from the same base: PyTorch's wheel depends on the ones it was built with, and ONNX
# Runtime loads those too. A CUDA base image would bring all of them a second time.
FROM builder AS builder-gpu
RUN python -m pip --python /opt/glimpse/bin/python install --constraint constraints.txt '.[gpu]'
WORKDIR /src
COPY . .
RUN python -m pip --python /opt/glimpse/bin/python install --no-deps .

FROM runtime AS gpu
ENV GLIMPSE_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=builder-gpu /opt/glimpse /opt/glimpse

# The default is the one that runs everywhere.
FROM cpu
