"""Failure monitor for language-conditioned manipulation: the I-FailSense method as ROS 2 nodes."""

from pkgutil import extend_path

# Run from the source tree, this folder would shadow the installed one that holds the generated
# messages; with the search path extended, both are one package.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
