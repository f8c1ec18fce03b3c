# One line per operator file; tests/simt compiles the same .cu list for the CPU.
set(PYPOSE_OPS_CPU_SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/heatmaps/gaussian_heatmaps.cpp
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/heatmaps/gaussian_heatmaps_backward.cpp
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/peaks/decode_heatmaps.cpp
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/peaks/decode_offsets.cpp
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/peaks/decode_simcc.cpp
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/peaks/find_peaks.cpp)
set(PYPOSE_OPS_CUDA_SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/heatmaps/gaussian_heatmaps.cu
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/heatmaps/gaussian_heatmaps_backward.cu
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/peaks/decode_heatmaps.cu
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/peaks/decode_offsets.cu
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/peaks/decode_simcc.cu
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/peaks/find_peaks.cu)
