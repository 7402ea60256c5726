"""The engine: requests in, batches of steps through a runtime, answers out.

`request` is what waits and what is answered; `batcher` decides, without clock, threads or arrays; `slots` holds the
arrays and calls the runtime; `worker` is the thread that alternates between the two; `engine` is the asyncio side;
`report` is what the worker tells its listeners.
"""
