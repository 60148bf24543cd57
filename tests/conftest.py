"""What holds for all tests."""

from hypothesis import settings

# A shared machine may take its time over any example.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
