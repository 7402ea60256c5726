"""Benchmarks of the running service: a load generator, servers to load, and baselines; also the models' quality.

- Load: `client` sends the requests of `workloads` at the times that `arrivals` decides, with the timer in `alarm`;
  `response` parses the responses, and `timeline` records each request. `server` starts and stops the servers.
- Measurements: `scenarios` combines these. The baselines are `stn_limit` (no HTTP), `sequences` (no engine) and `plain`
  (no Glimpse); `served` loads models for them, and `turns` interleaves what is compared.
- Results: `report` and `chart`. `suite` is `glimpse bench`.
- Quality: `quality` computes the papers' measures on the served models, for `glimpse evaluate`.
"""
