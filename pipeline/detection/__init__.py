"""Detectors of one part or several: parts, how they meet, maps and image scores."""
