"""The examples of the published design of the SDK, as programs that run."""
