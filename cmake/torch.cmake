# The installed torch, without find_package(Torch): headers of the stable ABI and libtorch, nothing else.
# A cross build gives the folder of the target's torch as PYPOSE_OPS_TORCH_DIR.
if(NOT PYPOSE_OPS_TORCH_DIR)
  execute_process(
    COMMAND ${Python_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/torch_dir.py
    OUTPUT_VARIABLE PYPOSE_OPS_TORCH_DIR OUTPUT_STRIP_TRAILING_WHITESPACE
    ERROR_VARIABLE torch_error ERROR_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE torch_result)
  if(torch_result)
    message(FATAL_ERROR "pypose_ops: ${torch_error}")
  endif()
endif()

file(STRINGS ${PYPOSE_OPS_TORCH_DIR}/include/torch/headeronly/version.h version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE "[^0-9;]" "" version_numbers "${version_lines}")
string(REPLACE ";" "." PYPOSE_OPS_TORCH_VERSION "${version_numbers}")
message(STATUS "pypose_ops: torch ${PYPOSE_OPS_TORCH_VERSION} headers")

add_library(pypose_ops_torch INTERFACE)
target_link_directories(pypose_ops_torch INTERFACE ${PYPOSE_OPS_TORCH_DIR}/lib)
# libtorch itself is needed even though no symbol of it is used directly: on a CUDA torch it is what pulls in
# libtorch_cuda, where the weak stream symbol of common/cuda.cuh is found.
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  target_link_options(pypose_ops_torch INTERFACE LINKER:--no-as-needed)
endif()
target_link_libraries(pypose_ops_torch INTERFACE torch torch_cpu)

function(pypose_ops_compile_options target)
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../csrc)
  target_include_directories(${target} SYSTEM PRIVATE ${PYPOSE_OPS_TORCH_DIR}/include)
  # 2.10, so that one binary serves every torch from there on (0x020a..., not 0x0210..., which would be 2.16).
  target_compile_definitions(${target} PRIVATE TORCH_TARGET_VERSION=0x020a000000000000)
  get_filename_component(source_root ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/.. ABSOLUTE)
  # -O3 always: the CPU kernels rely on the vectoriser. -fno-trapping-math and -fno-math-errno let it turn selects and
  # roots into vector code; NaN and infinity keep their meaning. -Wno-psabi: vector types never cross a real call.
  set(arithmetic -fno-trapping-math -fno-math-errno -ffp-contract=fast)
  if(MSVC)
    list(TRANSFORM arithmetic PREPEND "/clang:")
    set(cxx /clang:-O3 /W3 /WX -Wno-psabi ${arithmetic})
  else()
    set(cxx -O3 -Wall -Wextra -Werror -Wno-psabi ${arithmetic} -ffile-prefix-map=${source_root}/=)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # No garbage collection below a gigabyte, which no file reaches: 5 to 13 % of the time.
    list(APPEND cxx --param=ggc-min-heapsize=1000000)
  endif()
  target_compile_options(${target} PRIVATE
    "$<$<COMPILE_LANGUAGE:CXX>:${cxx}>"
    $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Werror,-ffile-prefix-map=${source_root}/= -Werror=all-warnings
      --expt-relaxed-constexpr $<$<BOOL:${PYPOSE_OPS_LINE_INFO}>:-lineinfo>>)
endfunction()

# The level of csrc/common/simd.h that the compiler would choose for the processor it runs on.
function(pypose_ops_native_level result)
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/native.cpp "")
  execute_process(COMMAND ${CMAKE_CXX_COMPILER} -march=native -dM -E ${CMAKE_CURRENT_BINARY_DIR}/native.cpp
    OUTPUT_VARIABLE macros ERROR_QUIET)
  set(level baseline)
  if(macros MATCHES "__AVX512F__" AND macros MATCHES "__AVX512VL__" AND macros MATCHES "__AVX512BW__" AND macros MATCHES "__AVX512DQ__")
    set(level avx512)
  elseif(macros MATCHES "__AVX2__" AND macros MATCHES "__FMA__")
    set(level avx2)
  endif()
  message(STATUS "pypose_ops: CPU kernels for this processor only (${level})")
  set(${result} ${level} PARENT_SCOPE)
endfunction()
