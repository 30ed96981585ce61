"""Settings of the property tests."""

from hypothesis import settings

# Continuous integration runs on two slow cores: examples have no deadline, the test as a whole has one (pytest-timeout).
settings.register_profile("nexus-edge", deadline=None, derandomize=True)
settings.load_profile("nexus-edge")
