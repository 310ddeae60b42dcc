"""The data plane: HTTP/1.1 on asyncio protocols, in the worker process.

On the request's way there is no Task, no Future, no logging call, no model object and no Redis (docs/architecture.md).
"""
