"""Errors a user can act on. The message is one line: what is wrong, where, what to do."""


class InvadError(Exception):
    """Base of every error that invad raises on purpose; the CLI prints it without a traceback."""


class ConfigError(InvadError):
    """An option or configuration key is unknown or out of range."""


class DataError(InvadError):
    """An image, mask or folder cannot be used."""


class WeightsError(InvadError):
    """Network weights cannot be found or do not fit the architecture."""


class TrainingError(InvadError):
    """Training cannot continue (not-a-number loss, unusable output folder, foreign checkpoint)."""


class ArtifactError(InvadError):
    """A saved model is missing, truncated, altered or of a newer format."""


class NotCalibratedError(InvadError):
    """A decision was asked of a detector that has seen no held-out normal images."""
