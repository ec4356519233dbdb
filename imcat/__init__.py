"""imcat: survey image tiles in, a catalogue to publish from out."""

__version__ = "0.1.0"
