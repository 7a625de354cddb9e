"""Official code beside ours: what `peer.py` and `parity.py` share.

`sizes` says what is compared, `talk` how processes speak, `checkout` how old code is imported as it
is, `official` and the files of each system run it (PyTorch alone), `ours` runs the library (JAX
alone).
"""
