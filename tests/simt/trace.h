// What the compiler's instrumentation (-fsanitize=thread, without its runtime) tells of every access to memory: races on
// shared memory, and the sectors of global memory that warps touch. Only in the traced build.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simt {

// The runtime says where a launch stands.
struct TraceRanges {
  const char *static_shared, *static_shared_end;
  const char *dynamic_shared, *dynamic_shared_end;
};
#ifdef SIMT_TRACE
void trace_block(const TraceRanges& ranges);  // a block begins
void trace_block_end();
void trace_barrier();                 // all threads of the block have met
void trace_warp_sync(unsigned warp);  // its lanes have met
void trace_atomic(bool begins);       // the accesses of an atomic operation
#else
inline void trace_block(const TraceRanges&) {}
inline void trace_block_end() {}
inline void trace_barrier() {}
inline void trace_warp_sync(unsigned) {}
inline void trace_atomic(bool) {}
#endif

}  // namespace simt
