"""Extract: images through a backbone into the token cache."""
