"""The shared tier of several mirrors: an object store with blobs by digest, and leases.

`interfaces` has the protocols; each library has one module of its own, which is imported where the
configuration uses it: obstore in `s3`, redis in `redis_leases`.
"""
