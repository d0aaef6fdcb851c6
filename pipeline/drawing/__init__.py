"""Everything that is drawn: one palette, one canvas; heatmaps, overlays and plots by one hand."""
