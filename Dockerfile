# One recipe, two images:
#   docker build --tag glimpse:cpu .                  ONNX Runtime alone, without PyTorch
#   docker build --tag glimpse:gpu --target gpu .     ONNX Runtime for CUDA, and PyTorch for the TorchScript runtime
# A builder without BuildKit makes every stage up to its target; in this order `--target cpu` never meets CUDA.

FROM python:3.11-slim-bookworm AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_COMPILE=1
WORKDIR /src
# Without pip of its own: nothing is ever installed into a running container.
RUN python -m venv --without-pip /opt/glimpse
COPY . .

FROM builder AS builder-cpu
RUN python -m pip --python /opt/glimpse/bin/python install --constraint constraints.txt '.[cpu]'
