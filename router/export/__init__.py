"""The same rings for another proxy, as a file that stands still: what nginx and HAProxy can have of a snapshot. Pure.

``reduced`` takes away what the other one cannot do and says so; ``haproxy.config`` and ``nginx.config`` write the rest.
"""
