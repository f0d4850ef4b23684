"""ROS 2 nodes of gena3d: thin adapters around gena3d_core.

The generated interfaces (`gena3d_ros.msg`, `.srv`, `.action`) may lie in another folder of the same name, such as
site-packages, while these sources come from a checkout: both are merged into one package.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
