"""What holds for all tests."""

import signal

from hypothesis import settings

# A shared machine may take its time over any example.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A job in the background of a script is begun with Ctrl-C ignored, and so were whatever training is tested here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
