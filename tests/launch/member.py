"""One of several processes that wait for each other again and again, as those of a training do."""

import time

from jax.experimental import multihost_utils

from jaxt2i.run import processes

if __name__ == "__main__":
    processes.join()
    with processes.together():
        while True:
            multihost_utils.sync_global_devices("here")
            print("up", flush=True)
            time.sleep(0.1)
