"""Flow3r for robots: poses, dense depth and point clouds from one monocular camera."""

from pkgutil import extend_path

# The messages generated from msg/ may be installed elsewhere (site-packages, a colcon overlay):
# `flow3r_ros.msg` is found there too.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
