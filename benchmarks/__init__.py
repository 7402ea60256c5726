"""How fast Glimpse is, measured from outside: a load generator, what it is pointed at, and what to compare with.

`client` sends requests when `arrivals` says so, and `timeline` holds what became of each; `workloads` are the requests;
`server` is who answers them; `scenarios` put these together. `stn_limit`, `sequences` and `plain` are what to compare
with: without HTTP, without an engine, without Glimpse; `served` opens the models for them, and all take `turns`.
`report` and `chart` tell of it; `suite` is `glimpse bench`.

And how good it is: `quality` takes the papers' measures of what is served, for `glimpse evaluate`.
"""
