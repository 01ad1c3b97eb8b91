"""Data that come with the toolkit, and readers of NumPy and IDX files.

``digits`` needs no file; ``npy`` and ``npz`` read arrays, ``idx`` the files of MNIST and its kin,
and ``shards`` arrays in many files, which need not fit into memory.
Nothing here unpickles, and no file makes a reader allocate more than the file really holds.
"""
