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
set(PYPOSE_OPS_CPU_SOURCES)
set(PYPOSE_OPS_CUDA_SOURCES)
foreach(stem IN LISTS PYPOSE_OPS_STEMS)
  list(APPEND PYPOSE_OPS_CPU_SOURCES ${CMAKE_CURRENT_LIST_DIR}/../csrc/${stem}.cpp)
  list(APPEND PYPOSE_OPS_CUDA_SOURCES ${CMAKE_CURRENT_LIST_DIR}/../csrc/${stem}.cu)
endforeach()
# Operators of the host, whatever the device of the tensors.
list(APPEND PYPOSE_OPS_CPU_SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/grouping/group_by_tags.cpp
  ${CMAKE_CURRENT_LIST_DIR}/../csrc/grouping/group_people.cpp)
