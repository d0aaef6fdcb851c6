"""Pure maths on tensors: SAE, guides, losses, maps, metrics. Opens no file and knows no path."""
