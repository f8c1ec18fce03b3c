# csrc/<family>/<op>.cpp and .cu, found again by every build; tests/simt compiles the same .cu files for the CPU. A .cpp
# without a .cu is an operator of the host, whatever the device of its tensors.
set(csrc ${CMAKE_CURRENT_LIST_DIR}/../csrc)
file(GLOB PYPOSE_OPS_CPU_SOURCES CONFIGURE_DEPENDS ${csrc}/*/*.cpp)
file(GLOB PYPOSE_OPS_CUDA_SOURCES CONFIGURE_DEPENDS ${csrc}/*/*.cu)
set(PYPOSE_OPS_DEVICE_SOURCES ${PYPOSE_OPS_CUDA_SOURCES})
list(TRANSFORM PYPOSE_OPS_DEVICE_SOURCES REPLACE "\\.cu$" ".cpp")

# The operators that these sources register, as C++ strings: what a build without CUDA has to answer for.
function(pypose_ops_registered_names result)
  set(names)
  foreach(source IN LISTS ARGN)
    file(STRINGS ${source} lines REGEX "m\\.impl\\(\"[a-z0-9_.]+\"")
    foreach(line IN LISTS lines)
      string(REGEX MATCH "\"[a-z0-9_.]+\"" name "${line}")
      list(APPEND names ${name})
    endforeach()
  endforeach()
  string(REPLACE ";" "," names "${names},")
  set(${result} ${names} PARENT_SCOPE)
endfunction()

# Files that are compiled together, which takes two thirds of the time: headers are read once per unit. Names in
# the anonymous namespaces of a unit must differ. The longest come first, so that no core waits for one at the end.
set(PYPOSE_OPS_UNITS
  "patches/(box_vote|crop_patches)"
  "peaks/decode[a-z_]+"
  "grouping/[a-z_]+"
  "peaks/(find|soft)[a-z_]+"
  "patches/[a-z_]+_backward"
  "heatmaps/(gaussian|heatmap)[a-z_]+"
  "mrf/mrf[a-z_]+"
  "heatmaps/(limb|part)[a-z_]+"
  "mrf/sum[a-z_]+"
  "heatmaps/(offset|simcc)[a-z_]+"
  "mrf/max[a-z_]+")
function(pypose_ops_units result)
  set(left ${ARGN})
  set(units)
  foreach(pattern IN LISTS PYPOSE_OPS_UNITS)
    set(members ${left})
    list(FILTER members INCLUDE REGEX "csrc/${pattern}\\.cp?p?u?$")
    list(FILTER left EXCLUDE REGEX "csrc/${pattern}\\.cp?p?u?$")
    if(members)
      list(TRANSFORM members REPLACE ".*/csrc/(.*)" "#include \"\\1\"\n" OUTPUT_VARIABLE text)
      list(GET members 0 first)
      string(REGEX REPLACE ".*/csrc/" "" first ${first})
      set(unit ${CMAKE_CURRENT_BINARY_DIR}/units/${first})
      string(JOIN "" text ${text})
      file(CONFIGURE OUTPUT ${unit} CONTENT "${text}" @ONLY)
      list(APPEND units ${unit})
    endif()
  endforeach()
  set(${result} ${units} ${left} PARENT_SCOPE)
endfunction()
