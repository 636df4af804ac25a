"""Settings of all tests."""

from hypothesis import settings

settings.register_profile("kit", deadline=None)  # how long a case takes says nothing about the code
settings.load_profile("kit")
