#include "trace.h"

#include <pthread.h>

#include <algorithm>
#include <string>
#include <vector>

#include "machine.h"

namespace simt {
namespace {

// Who touched a byte of shared memory last. Epochs count barriers, of the block and of the warp.
struct Touch {
  uint32_t epoch = 0, warp_epoch = 0;
  uint16_t thread = 0;
  bool atomic = false;
};
struct Byte {
  Touch write, read, other_read;  // other_read: of another warp than read
};

struct Access {
  const void* pc;
  uint32_t thread, number;  // the number of the thread's access from this pc
  uint64_t address;
  uint32_t bytes;
  bool write;
};

struct Trace {
  bool active = false, atomic = false, sectors = false;
  TraceRanges ranges{};
  uint32_t epoch = 1, warp_epoch[kMaxThreads / kWarp] = {};
  std::vector<Byte> fixed, dynamic;
  std::vector<Access> accesses;
  const char *stack = nullptr, *stack_end = nullptr;  // of the thread that launches
  uint64_t read_bytes = 0, written_bytes = 0;
};
Trace& trace = *new Trace();

void find_stack() {
  pthread_attr_t attributes;
  void* low = nullptr;
  size_t size = 0;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &low, &size);
  pthread_attr_destroy(&attributes);
  trace.stack = static_cast<const char*>(low);
  trace.stack_end = trace.stack + size;
}

// Whether an earlier access may meet this one: in the same epoch of the block, by another thread that no barrier of their
// warp separates from this one.
bool meets(const Touch& earlier, unsigned thread, bool atomic) {
  if (earlier.epoch != trace.epoch || earlier.thread == thread || (earlier.atomic && atomic)) {
    return false;
  }
  return earlier.thread / kWarp != thread / kWarp || earlier.warp_epoch == trace.warp_epoch[thread / kWarp];
}

[[noreturn]] void report(const char* what, const Touch& earlier, bool fixed, size_t offset) {
  const std::string text = std::string("race on shared memory: ") + what + " byte " + std::to_string(offset) +
      " of the " + (fixed ? "static" : "dynamic") + " memory, and thread " + std::to_string(earlier.thread) +
      " before it, with no barrier between them,";
  trace.active = false;
  stop(text.c_str(), machine.current->place.file ? machine.current->place : Place{"before any barrier", 0});
}

void touch_shared(std::vector<Byte>& bytes, size_t offset, unsigned count, bool write, bool fixed) {
  const unsigned thread = number_of(*machine.current);
  const Touch now{trace.epoch, trace.warp_epoch[thread / kWarp], static_cast<uint16_t>(thread), trace.atomic};
  for (size_t i = offset; i < offset + count && i < bytes.size(); ++i) {
    Byte& byte = bytes[i];
    if (meets(byte.write, thread, trace.atomic)) {
      report(write ? "a thread writes" : "a thread reads", byte.write, fixed, i);
    }
    if (!write) {
      if (byte.read.epoch == trace.epoch && byte.read.thread / kWarp != thread / kWarp) {
        byte.other_read = byte.read;
      }
      byte.read = now;
      continue;
    }
    for (const Touch* read : {&byte.read, &byte.other_read}) {
      if (meets(*read, thread, trace.atomic)) {
        report("a thread writes", *read, fixed, i);
      }
    }
    byte.write = now;
  }
}

bool within(const char* address, const char* begin, const char* end) {
  return address >= begin && address < end;
}

void touch(const void* pc, const void* memory, unsigned bytes, bool write) {
  if (!trace.active) {
    return;
  }
  const char* address = static_cast<const char*>(memory);
  const TraceRanges& ranges = trace.ranges;
  if (within(address, ranges.static_shared, ranges.static_shared_end)) {
    touch_shared(trace.fixed, address - ranges.static_shared, bytes, write, true);
  } else if (within(address, ranges.dynamic_shared, ranges.dynamic_shared_end)) {
    touch_shared(trace.dynamic, address - ranges.dynamic_shared, bytes, write, false);
  } else if (
      trace.sectors && !machine.running->owns(address) && !within(address, trace.stack, trace.stack_end) &&
      !within(address, reinterpret_cast<const char*>(&registers), reinterpret_cast<const char*>(&registers + 1))) {
    trace.accesses.push_back(
        {pc, number_of(*machine.current), 0, reinterpret_cast<uint64_t>(memory), bytes, write});
  }
}

// The n-th access of each lane from one place in the code is one instruction of the warp: it moves every sector of 32 bytes
// that its lanes touch.
void add_sectors() {
  constexpr uint64_t kSector = 32;
  auto& all = trace.accesses;
  std::stable_sort(all.begin(), all.end(), [](const Access& a, const Access& b) {
    return a.pc != b.pc ? a.pc < b.pc : a.thread < b.thread;
  });
  for (size_t i = 1; i < all.size(); ++i) {
    all[i].number = all[i].pc == all[i - 1].pc && all[i].thread == all[i - 1].thread ? all[i - 1].number + 1 : 0;
  }
  const auto same = [](const Access& a, const Access& b) {
    return a.pc == b.pc && a.thread / kWarp == b.thread / kWarp && a.number == b.number;
  };
  std::stable_sort(all.begin(), all.end(), [](const Access& a, const Access& b) {
    const unsigned warp_a = a.thread / kWarp, warp_b = b.thread / kWarp;
    return a.pc != b.pc ? a.pc < b.pc : warp_a != warp_b ? warp_a < warp_b : a.number < b.number;
  });
  std::vector<uint64_t> sectors, fetched;
  for (size_t begin = 0; begin < all.size();) {
    size_t end = begin;
    sectors.clear();
    for (; end < all.size() && same(all[begin], all[end]); ++end) {
      for (uint64_t s = all[end].address / kSector; s <= (all[end].address + all[end].bytes - 1) / kSector; ++s) {
        sectors.push_back(s);
      }
    }
    std::sort(sectors.begin(), sectors.end());
    sectors.erase(std::unique(sectors.begin(), sectors.end()), sectors.end());
    if (all[begin].write) {
      trace.written_bytes += kSector * sectors.size();
    } else {
      fetched.insert(fetched.end(), sectors.begin(), sectors.end());
    }
    begin = end;
  }
  // What a block has read lies in its multiprocessor's cache: tables and keypoints are fetched once.
  std::sort(fetched.begin(), fetched.end());
  fetched.erase(std::unique(fetched.begin(), fetched.end()), fetched.end());
  trace.read_bytes += kSector * fetched.size();
  all.clear();
}

}  // namespace

void trace_block(const TraceRanges& ranges) {
  trace.ranges = ranges;
  trace.epoch = 1;
  std::fill(std::begin(trace.warp_epoch), std::end(trace.warp_epoch), 0);
  trace.fixed.assign(ranges.static_shared_end - ranges.static_shared, Byte());
  trace.dynamic.assign(ranges.dynamic_shared_end - ranges.dynamic_shared, Byte());
  trace.atomic = false;
  find_stack();
  trace.active = true;
}

void trace_block_end() {
  trace.active = false;
  add_sectors();
}

void trace_barrier() {
  ++trace.epoch;
}

void trace_warp_sync(unsigned warp) {
  ++trace.warp_epoch[warp];
}

void trace_atomic(bool begins) {
  trace.atomic = begins;
}

}  // namespace simt

#define SIMT_EXPORT extern "C" __attribute__((visibility("default")))

// For the tests, through ctypes.
SIMT_EXPORT void simt_trace_sectors(bool on) {
  simt::trace.sectors = on;
  simt::trace.read_bytes = simt::trace.written_bytes = 0;
}
SIMT_EXPORT void simt_traced_bytes(uint64_t* read, uint64_t* written) {
  *read = simt::trace.read_bytes;
  *written = simt::trace.written_bytes;
}

// What instrumented code calls.
#define SIMT_HOOK extern "C" __attribute__((visibility("hidden")))
#define SIMT_ACCESS(NAME, BYTES)                                                                                 \
  SIMT_HOOK void __tsan_read##NAME(void* address) {                                                              \
    simt::touch(__builtin_return_address(0), address, BYTES, false);                                             \
  }                                                                                                              \
  SIMT_HOOK void __tsan_write##NAME(void* address) {                                                             \
    simt::touch(__builtin_return_address(0), address, BYTES, true);                                              \
  }                                                                                                              \
  SIMT_HOOK void __tsan_volatile_read##NAME(void* address) {                                                     \
    simt::touch(__builtin_return_address(0), address, BYTES, false);                                             \
  }                                                                                                              \
  SIMT_HOOK void __tsan_volatile_write##NAME(void* address) {                                                    \
    simt::touch(__builtin_return_address(0), address, BYTES, true);                                              \
  }                                                                                                              \
  SIMT_HOOK void __tsan_unaligned_read##NAME(void* address) {                                                    \
    simt::touch(__builtin_return_address(0), address, BYTES, false);                                             \
  }                                                                                                              \
  SIMT_HOOK void __tsan_unaligned_write##NAME(void* address) {                                                   \
    simt::touch(__builtin_return_address(0), address, BYTES, true);                                              \
  }
SIMT_ACCESS(1, 1)
SIMT_ACCESS(2, 2)
SIMT_ACCESS(4, 4)
SIMT_ACCESS(8, 8)
SIMT_ACCESS(16, 16)
SIMT_HOOK void __tsan_read_range(void* address, size_t bytes) {
  simt::touch(__builtin_return_address(0), address, static_cast<unsigned>(bytes), false);
}
SIMT_HOOK void __tsan_write_range(void* address, size_t bytes) {
  simt::touch(__builtin_return_address(0), address, static_cast<unsigned>(bytes), true);
}
SIMT_HOOK void __tsan_init() {}
SIMT_HOOK void __tsan_func_entry(void*) {}
SIMT_HOOK void __tsan_func_exit() {}
SIMT_HOOK void __tsan_vptr_update(void**, void*) {}
SIMT_HOOK void __tsan_vptr_read(void**) {}
SIMT_HOOK void __tsan_atomic_thread_fence(int) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
#define SIMT_ATOMIC(BITS, T)                                                                                     \
  SIMT_HOOK T __tsan_atomic##BITS##_load(const volatile T* a, int) { return __atomic_load_n(a, __ATOMIC_SEQ_CST); } \
  SIMT_HOOK void __tsan_atomic##BITS##_store(volatile T* a, T v, int) { __atomic_store_n(a, v, __ATOMIC_SEQ_CST); } \
  SIMT_HOOK T __tsan_atomic##BITS##_exchange(volatile T* a, T v, int) {                                          \
    return __atomic_exchange_n(a, v, __ATOMIC_SEQ_CST);                                                          \
  }                                                                                                              \
  SIMT_HOOK T __tsan_atomic##BITS##_fetch_add(volatile T* a, T v, int) {                                         \
    return __atomic_fetch_add(a, v, __ATOMIC_SEQ_CST);                                                           \
  }                                                                                                              \
  SIMT_HOOK T __tsan_atomic##BITS##_fetch_sub(volatile T* a, T v, int) {                                         \
    return __atomic_fetch_sub(a, v, __ATOMIC_SEQ_CST);                                                           \
  }                                                                                                              \
  SIMT_HOOK bool __tsan_atomic##BITS##_compare_exchange_strong(volatile T* a, T* c, T v, int, int) {             \
    return __atomic_compare_exchange_n(a, c, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                      \
  }                                                                                                              \
  SIMT_HOOK bool __tsan_atomic##BITS##_compare_exchange_weak(volatile T* a, T* c, T v, int, int) {               \
    return __atomic_compare_exchange_n(a, c, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                      \
  }
SIMT_ATOMIC(8, uint8_t)
SIMT_ATOMIC(16, uint16_t)
SIMT_ATOMIC(32, uint32_t)
SIMT_ATOMIC(64, uint64_t)
