"""Models in files: the only room that opens them.

`names` says what the files of a model folder are called, `reader` reads their tensors one at a time
and `writer` writes them shard by shard; `load` and `save` turn folders into models and back, with
`config`, `folder` and `checksums`; `journal` keeps what long work has finished.
"""
