"""Scores of images and of image-text pairs: functions of features, on any number of processes.

`statistics` accumulates moments; `frechet`, `inception_score`, `kernel`, `manifold`, `retrieval`,
`diversity` and `nearest` are families of metrics; `confidence` gives their intervals; `protocols`
says under which settings a number was published. `drawn` is what training runs are judged by.
"""
