"""How fast Glimpse is, measured from outside: a load generator, what it is pointed at, and what to compare with.

`client` sends requests and `timeline` holds what became of each; `workloads` are the requests; `server` is who answers
them; `scenarios` put these together; `baselines` are the limits without HTTP and without an engine; `report` and
`chart` tell of it; `suite` is the `glimpse bench` command.
"""
