"""The commands about hosted registries."""
