"""The race of the script beside this file: slalom race race_spiral.py adam sgd:momentum=0.9."""

from slalom.race.adapt import Script

spiral = Script("train_spiral.py", steps=300, target=0.4)
