"""Probes: hooks that turn a step into statistics, on the device where the tensors live."""
