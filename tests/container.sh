#!/usr/bin/env bash
# Builds the CPU image, starts it as a user would, asks it of everything, measures it, stops it.
#
# DOCKER_BUILD_ARGS is added to `docker build`: a proxy, another network. GLIMPSE_PORT is where it listens (8000).
set -euo pipefail
cd "$(dirname "$0")/.."

# The base image is not ours, and differs by where it comes from, so what we put into it is what counts: with the 130 MB
# of the official python:3.11-slim-bookworm this makes 490 MB.
environment_limit_bytes=360000000
memory_limit_bytes=400000000
healthy_within_seconds=60

export GLIMPSE_PORT=${GLIMPSE_PORT:-8000}
url=http://127.0.0.1:$GLIMPSE_PORT
work=$(mktemp -d)
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
compose+=(--project-name glimpse-test)

fail() {
  echo "FAILED: $*" >&2
  exit 1
}
clean_up() {
  local status=$?
  ((status == 0)) || "${compose[@]}" logs --tail 50 >&2 || true
  "${compose[@]}" down --timeout 5 >"$work/down" 2>&1 || cat "$work/down" >&2
  rm -r "$work"
  exit "$status"
}
trap clean_up EXIT
now_ms() { date +%s%3N; }
ask() { curl --silent --show-error --fail --max-time 30 "$@"; } # ask CURL-ARGUMENT...
inspect() { docker inspect --format "$1" "$2"; }                # inspect TEMPLATE OBJECT
run_python() { docker exec "$container" python -c "$1"; }

echo "build"
# shellcheck disable=SC2086 # several arguments in one variable
docker build ${DOCKER_BUILD_ARGS:-} --target cpu --tag glimpse:cpu . >"$work/build" 2>&1 ||
  { tail -n 40 "$work/build" >&2 && fail "the image does not build"; }

echo "start"
began=$(now_ms)
"${compose[@]}" up --detach --no-build >"$work/up" 2>&1 || { cat "$work/up" >&2 && fail "Compose does not start it"; }
container=$("${compose[@]}" ps --quiet glimpse)
until curl --silent --fail --max-time 1 --output /dev/null "$url/readyz"; do
  (($(now_ms) - began < healthy_within_seconds * 1000)) || fail "not ready within $healthy_within_seconds s"
  sleep 0.1
done
echo "  ready $(($(now_ms) - began)) ms after 'up'"
memory_bytes=$(ask "$url/metrics" | awk '$1 == "glimpse_process_resident_memory_bytes" { printf "%.0f", $2 }')
echo "  memory at rest: $((memory_bytes / 1000000)) MB"
((memory_bytes < memory_limit_bytes)) || fail "more than $((memory_limit_bytes / 1000000)) MB of memory at rest"
until [[ $(inspect '{{.State.Health.Status}}' "$container") == healthy ]]; do
  (($(now_ms) - began < healthy_within_seconds * 1000)) || fail "not healthy within $healthy_within_seconds s"
  sleep 0.5
done

echo "ask"
draw="$url/draw/generate?steps=8&seed=1"
ask "$draw" >"$work/first.gif"
ask "$draw" >"$work/second.gif"
[[ $(head -c 4 "$work/first.gif") == GIF8 ]] || fail "DRAW answers no GIF"
cmp "$work/first.gif" "$work/second.gif" || fail "the same seed gives another picture"
# What DRAW draws, the STN reads.
ask "$url/draw/generate?seed=1&format=final" >"$work/digit.png"
ask --header 'Content-Type: image/png' --data-binary "@$work/digit.png" "$url/stn/rectify?format=json" >"$work/stn.json"
grep -q '"label":[0-9]' "$work/stn.json" || fail "the STN gives no label: $(head -c 300 "$work/stn.json")"
ask "$url/ntm/copy?length=5&seed=1" >"$work/ntm.json"
grep -q '"bit_errors":' "$work/ntm.json" || fail "the NTM does not copy: $(head -c 300 "$work/ntm.json")"
status=$(curl --silent --output "$work/problem.json" --write-out '%{http_code} %{content_type}' \
  --header 'Content-Type: image/png' --data-binary 'no picture' "$url/stn/rectify")
[[ $status == "400 application/problem+json" ]] || fail "text called a picture is answered with $status"
ask "$url/metrics" >"$work/metrics"
grep -q '^glimpse_ready 1' "$work/metrics" || fail "the metrics do not say that it is ready"
grep -q '^glimpse_requests_total{code="200",model="[^"]*",route="/draw/generate"} 3' "$work/metrics" ||
  fail "the metrics have not counted the requests: $(grep ^glimpse_requests_total "$work/metrics")"

echo "look inside"
[[ $(docker exec "$container" id -u) != 0 ]] || fail "it runs as root"
! docker exec --user 0 "$container" touch /opt/glimpse/probe 2>/dev/null || fail "its root file system is writable"
run_python 'from importlib.util import find_spec; raise SystemExit(find_spec("torch") is not None)' ||
  fail "the CPU image contains PyTorch"
image_bytes=$(inspect '{{.Size}}' glimpse:cpu)
environment_bytes=$(docker exec "$container" du --bytes --summarize /opt/glimpse | cut -f 1)
echo "  image: $((image_bytes / 1000000)) MB, of which $((environment_bytes / 1000000)) MB are ours"
((environment_bytes < environment_limit_bytes)) || fail "/opt/glimpse is over $((environment_limit_bytes / 1000000)) MB"

echo "stop"
began=$(now_ms)
"${compose[@]}" stop >"$work/stop" 2>&1
exit_code=$(inspect '{{.State.ExitCode}}' "$container")
[[ $exit_code == 0 ]] || fail "it stopped with exit code $exit_code"
echo "  stopped in $(($(now_ms) - began)) ms"
echo "passed"
