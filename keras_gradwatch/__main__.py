"""`python -m keras_gradwatch`."""

import sys

from keras_gradwatch.command import main

sys.exit(main())
