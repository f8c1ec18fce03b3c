// The state of the launch in progress, shared by simt.cpp (blocks, fibers, errors) and synchronise.cpp (which thread waits
// for which).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fiber.h"
#include "simt.h"

namespace simt {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;

enum class State : uint8_t { not_started, running, at_barrier, in_warp_op, returned };

struct Thread {
  uint3 index;
  State state;
  WarpOp op;
  unsigned mask, source;
  uint64_t value, result;
  Place place;
  Fiber* fiber;
};

struct Warp {
  unsigned waiting;   // lanes in a warp operation
  unsigned returned;  // lanes that have returned or never were
};

// Everything about the launch in progress. There is one at a time: __shared__ variables exist once.
// The memory of the __shared__ variables of one thread of the operating system; empty where it is not known.
struct StaticShared {
  char *begin, *end;
};

struct Machine {
  void (*body)(const void*);
  const void* context;
  unsigned count;  // threads per block
  Thread threads[kMaxThreads];
  Warp warps[kMaxThreads / kWarp];

  unsigned order[kMaxThreads];  // thread numbers in the order they run
  unsigned lane_order[kWarp];
  unsigned started;

  // Threads that can go on, as a ring: each is in it once at most.
  unsigned ready[kMaxThreads];
  unsigned ready_first, ready_count;

  // The block's barrier.
  unsigned arrived, votes, returned;
  Place barrier_place;
  bool synchronised;  // since static shared memory was filled

  Thread* current;
  Fiber os_thread;
  Fiber* running;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> idle;
  std::string error;
  std::unique_ptr<char[]> shared;
  StaticShared fixed;
};

extern Machine& machine;

inline unsigned number_of(const Thread& thread) {
  return static_cast<unsigned>(&thread - machine.threads);
}

// Lets the other threads run until this one is made ready.
void wait();

// To be called when a thread has returned: others may have waited for it.
void thread_returned(Thread& thread);

const char* name_of(WarpOp op);
std::string text_of(const Place& place);

}  // namespace simt
