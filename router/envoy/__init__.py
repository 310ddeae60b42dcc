"""Envoy as the data plane: the same config and the same Redis, as files that Envoy watches (docs/envoy.md)."""
