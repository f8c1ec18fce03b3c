// Barriers and warp operations: which thread waits for which, and what each gets.
#include <cstring>

#include "machine.h"
#include "trace.h"

namespace simt {
namespace {

constexpr const char* kWarpOpNames[] = {
    "__syncwarp", "__shfl_sync", "__shfl_up_sync", "__shfl_xor_sync", "__ballot_sync"};

void make_ready(Thread& thread) {
  Machine& m = machine;
  m.ready[(m.ready_first + m.ready_count) % kMaxThreads] = number_of(thread);
  ++m.ready_count;
}

void release_barrier() {
  Machine& m = machine;
  for (unsigned i = 0; i < m.count; ++i) {
    Thread& thread = m.threads[m.order[i]];
    if (thread.state != State::at_barrier) {
      continue;
    }
    thread.result = m.votes > 0;
    make_ready(thread);
  }
  m.arrived = m.votes = 0;
  trace_barrier();
}

// The results of a warp operation for all lanes of the mask, which have all arrived.
void resolve(WarpOp op, Thread* lanes, unsigned mask) {
  uint64_t common = 0;
  if (op == WarpOp::ballot) {
    for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
      const unsigned lane = __builtin_ctz(rest);
      common |= lanes[lane].value << lane;
    }
  }
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    Thread& self = lanes[__builtin_ctz(rest)];
    if (op >= WarpOp::shfl && op <= WarpOp::shfl_xor) {
      self.result = mask >> self.source & 1u ? lanes[self.source].value : ~uint64_t{0};
    } else {
      self.result = common;
    }
  }
}

// Completes the operation that this thread waits in, when all lanes of its mask that have not returned are in it too.
void try_complete(const Thread& thread) {
  Machine& m = machine;
  const unsigned warp_number = number_of(thread) / kWarp;
  Warp& warp = m.warps[warp_number];
  Thread* lanes = m.threads + warp_number * kWarp;
  const unsigned wanted = thread.mask & ~warp.returned;
  if ((wanted & ~warp.waiting) != 0) {
    return;
  }
  for (unsigned rest = wanted; rest != 0; rest &= rest - 1) {
    const Thread& other = lanes[__builtin_ctz(rest)];
    if (other.mask != thread.mask || other.op != thread.op) {
      return;
    }
  }
  resolve(thread.op, lanes, wanted);
  if (thread.op == WarpOp::sync) {
    trace_warp_sync(warp_number);
  }
  warp.waiting &= ~wanted;
  for (unsigned lane : m.lane_order) {
    if (wanted >> lane & 1u) {
      make_ready(lanes[lane]);
    }
  }
}

}  // namespace

void thread_returned(Thread& thread) {
  Machine& m = machine;
  const unsigned number = number_of(thread);
  thread.state = State::returned;
  ++m.returned;
  Warp& warp = m.warps[number / kWarp];
  warp.returned |= 1u << number % kWarp;
  for (unsigned rest = warp.waiting; rest != 0; rest &= rest - 1) {
    const unsigned lane = __builtin_ctz(rest);
    if (warp.waiting >> lane & 1u) {
      try_complete(m.threads[number / kWarp * kWarp + lane]);
    }
  }
  if (m.arrived > 0 && m.arrived + m.returned == m.count) {
    release_barrier();
  }
}

const char* name_of(WarpOp op) {
  return kWarpOpNames[static_cast<int>(op)];
}

unsigned lane() {
  return number_of(*machine.current) % kWarp;
}

bool barrier(bool predicate, Place at) {
  Machine& m = machine;
  Thread& self = *m.current;
  if (m.arrived > 0 && (at.line != m.barrier_place.line || std::strcmp(at.file, m.barrier_place.file) != 0)) {
    stop(("a thread came to this __syncthreads while others wait at " + text_of(m.barrier_place)).c_str(), at);
  }
  self.state = State::at_barrier;
  self.place = m.barrier_place = at;
  m.synchronised = true;
  m.votes += predicate;
  if (++m.arrived + m.returned == m.count) {
    release_barrier();
  }
  wait();
  return self.result != 0;
}

uint64_t warp_collective(WarpOp op, unsigned mask, uint64_t value, unsigned source, Place at) {
  Machine& m = machine;
  Thread& self = *m.current;
  const unsigned own = number_of(self) % kWarp;
  if ((mask >> own & 1u) == 0) {
    stop((std::string(name_of(op)) + " with a mask that excludes the calling lane").c_str(), at);
  }
  self.state = State::in_warp_op;
  m.synchronised |= op == WarpOp::sync;
  self.op = op;
  self.mask = mask;
  self.source = source;
  self.value = value;
  self.place = at;
  m.warps[number_of(self) / kWarp].waiting |= 1u << own;
  try_complete(self);
  wait();
  return self.result;
}

}  // namespace simt
