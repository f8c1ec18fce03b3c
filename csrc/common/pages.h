// Large fresh outputs on the CPU: most of the time of writing one is the page faults, 4 KB each.
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pypose_ops {

// From 4 MB on, as numpy does: less holds few whole pages of 2 MB. An element has at most 8 bytes.
constexpr int64_t kLeastHugeBytes = int64_t{4} << 20;
constexpr int64_t kLeastHugeElements = kLeastHugeBytes / 8;

// Asks the kernel for huge pages in [data, data + bytes). Only a hint: where the memory is in use already, or the system
// has no such pages, nothing changes.
inline void advise_huge_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = 1 << 16;  // a multiple of the pages of every platform
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / kPage * kPage;
  if (bytes >= kLeastHugeBytes && begin < end) {
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace pypose_ops
