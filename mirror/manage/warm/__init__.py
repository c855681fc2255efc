"""Warm: lists of images that are fetched ahead, from files of several kinds, and runs over them."""
