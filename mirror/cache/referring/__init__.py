"""Signatures and other referrers of images: prefetched with the images, or known to be absent."""
