"""Memory and time of a training before it begins, and the settings with which it fits."""
