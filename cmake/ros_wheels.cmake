# Lets this package build its interfaces against the ROS 2 wheels from PyPI; a real ROS installation does not need it.
# Use: cmake -DCMAKE_PROJECT_INCLUDE=<this file> ...   (colcon: --cmake-args -DCMAKE_PROJECT_INCLUDE=<this file>)
# The wheels export targets whose include directories name the machine that built them. CMake refuses such targets, so
# the missing directories are dropped once the whole project has been configured.
cmake_minimum_required(VERSION 3.21)
include_guard(GLOBAL)

function(gena3d_drop_missing_include_dirs)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    if(NOT target MATCHES "__rosidl_generator_py$")
      continue()
    endif()
    get_target_property(include_dirs "${target}" INTERFACE_INCLUDE_DIRECTORIES)
    set(existing "")
    foreach(dir IN LISTS include_dirs)
      if(dir AND EXISTS "${dir}")
        list(APPEND existing "${dir}")
      endif()
    endforeach()
    set_target_properties("${target}" PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${existing}")
  endforeach()
endfunction()

cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL gena3d_drop_missing_include_dirs)
