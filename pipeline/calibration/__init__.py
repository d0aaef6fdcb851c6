"""Calibrate: a threshold from images whose labels are known."""
