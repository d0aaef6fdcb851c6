"""Predict, calibrate and export: a fitted detector on unseen images."""
