# One line per operator file; tests/simt compiles the same .cu list for the CPU.
set(PYPOSE_OPS_STEMS
  grouping/oks
  grouping/oks_nms
  grouping/score_limbs
  heatmaps/gaussian_heatmaps
  heatmaps/gaussian_heatmaps_backward
  heatmaps/heatmap_mse_loss
  heatmaps/heatmap_mse_loss_backward
  heatmaps/limb_masks
  heatmaps/offset_heatmaps
  heatmaps/offset_heatmaps_backward
  heatmaps/part_affinity_fields
  heatmaps/part_affinity_fields_backward
  heatmaps/simcc_labels
  heatmaps/simcc_labels_backward
  mrf/max_product
  mrf/max_product_backward
  mrf/mrf_message_passing
  mrf/mrf_message_passing_backward
  mrf/sum_product
  mrf/sum_product_backward
  patches/box_vote
  patches/crop_patches
  patches/crop_patches_backward
  peaks/decode_heatmaps
  peaks/decode_offsets
  peaks/decode_simcc
  peaks/find_peaks
  peaks/soft_argmax
  peaks/soft_argmax_backward
)
set(PYPOSE_OPS_DEVICE_SOURCES)
set(PYPOSE_OPS_CUDA_SOURCES)
foreach(stem IN LISTS PYPOSE_OPS_STEMS)
  list(APPEND PYPOSE_OPS_DEVICE_SOURCES ${CMAKE_CURRENT_LIST_DIR}/../csrc/${stem}.cpp)
  list(APPEND PYPOSE_OPS_CUDA_SOURCES ${CMAKE_CURRENT_LIST_DIR}/../csrc/${stem}.cu)
endforeach()
# Operators of the host, whatever the device of the tensors.
set(PYPOSE_OPS_CPU_SOURCES ${PYPOSE_OPS_DEVICE_SOURCES}
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/grouping/group_by_tags.cpp
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/grouping/group_people.cpp)

# The operators that these sources register, as C++ strings: what a build without CUDA has to answer for.
function(pypose_ops_registered_names result)
  set(names)
  foreach(source IN LISTS ARGN)
    file(STRINGS ${source} lines REGEX "m\\.impl\\(\"[a-z0-9_]+\"")
    foreach(line IN LISTS lines)
      string(REGEX MATCH "\"[a-z0-9_]+\"" name "${line}")
      list(APPEND names ${name})
    endforeach()
  endforeach()
  string(REPLACE ";" "," names "${names},")
  set(${result} ${names} PARENT_SCOPE)
endfunction()

# Files that are compiled together: half of the compiler's work is the headers, which are then read once per unit. Names in
# the anonymous namespaces of a unit must differ.
set(PYPOSE_OPS_UNITS
  "grouping/[a-z_]+"
  "heatmaps/(gaussian|heatmap)[a-z_]+"
  "heatmaps/(limb|part)[a-z_]+"
  "heatmaps/(offset|simcc)[a-z_]+"
  "mrf/mrf[a-z_]+"
  "mrf/max[a-z_]+"
  "mrf/sum[a-z_]+"
  "patches/[a-z_]+_backward"
  "patches/(box_vote|crop_patches)"
  "peaks/(find|soft)[a-z_]+"
  "peaks/decode[a-z_]+")
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
