"""Run by a test in a process of its own: a training run that is asked to end, and goes on where it left off.

python terminated.py FOLDER LAST

Says "at N" before each step, and "left at N" when it was asked to end.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import torch
from harm import calls_to_the_system, make, train

import slalom


def main() -> None:
    folder, last = Path(sys.argv[1]), int(sys.argv[2])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    run = make()
    loaded = slalom.load_checkpoint(folder, **run)
    # saving takes about as long as the steps between, so that it is often met
    with calls_to_the_system(lambda name: time.sleep(0.002), stride=20):
        for position in range(loaded.position if loaded else 0, last):
            print(f"at {position}", flush=True)
            train(run, position, position + 1)
            time.sleep(0.02)
            if asked or position % 3 == 2:
                slalom.save_checkpoint(folder, **run, position=position + 1)
            if asked:
                print(f"left at {position + 1}", flush=True)
                sys.exit(128 + asked[0])
    slalom.save_checkpoint(folder, **run, position=last)


if __name__ == "__main__":
    main()
