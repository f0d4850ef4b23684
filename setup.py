"""Distribution `gena3d`: the core, the nodes and their launch, config and interface files. See pyproject.toml."""

from glob import glob

from setuptools import find_packages, setup

setup(
    packages=find_packages(include=["gena3d_core*", "gena3d_ros*"]),
    package_data={"gena3d_core": ["py.typed", "data/**/*"]},
    data_files=[
        ("share/gena3d_ros", ["package.xml"]),
        ("share/gena3d_ros/launch", glob("launch/*.py")),
        ("share/gena3d_ros/config", glob("config/*")),
        ("share/gena3d_ros/rviz", glob("rviz/*")),
    ],
)
