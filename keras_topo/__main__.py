"""`python -m keras_topo`: the command `keras-topo`."""

import sys

from keras_topo.training.command import main

sys.exit(main())
