"""The decision, pure: no asyncio, no clock, no random, no I/O, no third-party library but xxhash."""
