"""Sources as they are: what they mis-answer, and how their bytes are received all the same.

`transfer.blob_source` says what a source is. A new kind of source, an object store say, has its module here.
"""
