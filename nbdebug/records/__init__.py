"""Frozen dataclasses and enums that cross a border between rooms. A leaf: imports numpy and nothing of ours."""
