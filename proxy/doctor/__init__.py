"""The doctor: asks the world whether a configuration will keep people signed in, and says what to change."""
