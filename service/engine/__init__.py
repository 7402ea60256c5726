"""The engine: runs requests through a runtime in batches of steps.

`request` is the unit of work; `batcher` is the scheduling policy, without clock, threads or arrays; `slots` holds the
arrays and calls the runtime; `worker` is the thread that alternates between the two; `engine` is the asyncio side;
`report` is the interface to metrics.
"""
