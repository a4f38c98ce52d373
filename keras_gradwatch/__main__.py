"""`python -m keras_gradwatch`."""

import sys

from keras_gradwatch.reports.command import main

sys.exit(main())
