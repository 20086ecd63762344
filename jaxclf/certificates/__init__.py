"""Proofs about a point: how far it is from the minimum, or that there is no finite minimum."""
