"""The one exception for what a user can mend."""


class UserError(ValueError):
    """A mistake in what the user gave: data, configuration, files, devices.

    The message is one line that names the value, where it came from and what would be accepted. Command lines print
    it without a traceback and exit with status 2.
    """
