// Runs the blocks of a launch one by one. A thread starts on whatever fiber is idle and keeps it only when it has to
// wait; a kernel that never synchronises therefore runs its threads back to back on one stack.
#include "simt.h"

#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fiber.h"

// The ends of the section that __shared__ variables live in; weak, for a library that has none.
extern "C" {
extern char __start_simt_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_simt_shared[] __attribute__((weak, visibility("hidden")));
}

namespace simt {

Registers registers;

namespace {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr size_t kMaxSharedBytes = 48 * 1024;  // the static limit of every GPU; more needs an opt-in
constexpr const char* kWarpOpNames[] = {
    "__syncwarp",        "__shfl_sync",       "__shfl_up_sync",    "__shfl_down_sync",  "__shfl_xor_sync",
    "__ballot_sync",     "__any_sync",        "__all_sync",        "__match_any_sync",  "__reduce_add_sync",
    "__reduce_min_sync", "__reduce_max_sync", "__reduce_min_sync", "__reduce_max_sync", "__reduce_and_sync",
    "__reduce_or_sync",  "__reduce_xor_sync"};

enum class State : uint8_t { not_started, running, at_barrier, in_warp_op, returned };

struct Thread {
  uint3 index;
  State state;
  WarpOp op;
  Vote vote;
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
  bool barrier_used;

  Thread* current;
  Fiber os_thread;
  Fiber* running;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> idle;
  std::string error;
  std::unique_ptr<char[]> shared;
};

Machine& machine = *new Machine();  // never destroyed: a launch may still run while the process exits
std::mutex one_launch;

unsigned number_of(const Thread& thread) {
  return static_cast<unsigned>(&thread - machine.threads);
}

std::string text_of(const uint3& index) {
  std::ostringstream text;
  text << "(" << index.x << ", " << index.y << ", " << index.z << ")";
  return text.str();
}

std::string text_of(const Place& place) {
  return std::string(place.file) + ":" + std::to_string(place.line);
}

// ---- switching ----

void thread_loop();

// Leaves the running fiber for the next thread in line: one that can go on, else one that has not started, else back to
// run_block. Returns when the fiber is needed again.
void leave(bool parks) {
  Machine& m = machine;
  Fiber& from = *m.running;
  Fiber* to = &m.os_thread;
  if (m.ready_count > 0) {
    to = m.threads[m.ready[m.ready_first]].fiber;
    m.ready_first = (m.ready_first + 1) % kMaxThreads;
    --m.ready_count;
  } else if (m.started < m.count) {
    if (m.idle.empty()) {
      m.fibers.push_back(std::make_unique<Fiber>(thread_loop, m.fibers.size()));
      m.idle.push_back(m.fibers.back().get());
    }
    to = m.idle.back();
    m.idle.pop_back();
  }
  if (parks) {
    m.idle.push_back(&from);
  }
  if (to != &from) {
    m.running = to;
    from.switch_to(*to, parks);
  }
}

void wait() {
  Thread* self = machine.current;
  self->fiber = machine.running;
  leave(false);
  machine.current = self;
  self->state = State::running;
  registers.thread = self->index;
}

void make_ready(Thread& thread) {
  Machine& m = machine;
  m.ready[(m.ready_first + m.ready_count) % kMaxThreads] = number_of(thread);
  ++m.ready_count;
}

// ---- synchronisation ----

void release_barrier() {
  Machine& m = machine;
  for (unsigned i = 0; i < m.count; ++i) {
    Thread& thread = m.threads[m.order[i]];
    if (thread.state != State::at_barrier) {
      continue;
    }
    thread.result = thread.vote == Vote::count ? m.votes
        : thread.vote == Vote::any             ? m.votes > 0
                                               : m.votes == m.arrived;
    make_ready(thread);
  }
  m.arrived = m.votes = 0;
}

uint64_t combine(WarpOp op, uint64_t a, uint64_t b) {
  const int32_t signed_a = static_cast<int32_t>(a), signed_b = static_cast<int32_t>(b);
  switch (op) {
    case WarpOp::any:
    case WarpOp::bit_or:
      return a | b;
    case WarpOp::all:
    case WarpOp::bit_and:
      return a & b;
    case WarpOp::bit_xor:
      return a ^ b;
    case WarpOp::add:
      return static_cast<uint32_t>(a + b);
    case WarpOp::min_signed:
      return signed_a < signed_b ? a : b;
    case WarpOp::max_signed:
      return signed_a > signed_b ? a : b;
    case WarpOp::min_unsigned:
      return a < b ? a : b;
    default:
      return a > b ? a : b;
  }
}

// The results of a warp operation for all lanes of the mask, which have all arrived.
void resolve(WarpOp op, Thread* lanes, unsigned mask) {
  uint64_t common = 0;
  if (op == WarpOp::ballot) {
    for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
      const unsigned lane = __builtin_ctz(rest);
      common |= lanes[lane].value << lane;
    }
  } else if (op >= WarpOp::any && op != WarpOp::match_any) {
    common = lanes[__builtin_ctz(mask)].value;
    for (unsigned rest = mask & (mask - 1); rest != 0; rest &= rest - 1) {
      common = combine(op, common, lanes[__builtin_ctz(rest)].value);
    }
  }
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    Thread& self = lanes[__builtin_ctz(rest)];
    if (op >= WarpOp::shfl && op <= WarpOp::shfl_xor) {
      self.result = mask >> self.source & 1u ? lanes[self.source].value : ~uint64_t{0};
    } else if (op == WarpOp::match_any) {
      self.result = 0;
      for (unsigned other = mask; other != 0; other &= other - 1) {
        const unsigned lane = __builtin_ctz(other);
        self.result |= uint64_t{lanes[lane].value == self.value} << lane;
      }
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
  warp.waiting &= ~wanted;
  for (unsigned lane : m.lane_order) {
    if (wanted >> lane & 1u) {
      make_ready(lanes[lane]);
    }
  }
}

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

// What every fiber does: start threads until there are none left to start, then lie idle.
void thread_loop() {
  Machine& m = machine;
  for (;;) {
    while (m.ready_count == 0 && m.started < m.count) {
      Thread& thread = m.threads[m.order[m.started++]];
      m.current = &thread;
      thread.state = State::running;
      registers.thread = thread.index;
      m.body(m.context);
      thread_returned(*m.current);
    }
    leave(true);
  }
}

// ---- the order of blocks, warps and lanes ----

struct Order {
  enum { ascending, descending, shuffled } kind = ascending;
  std::mt19937_64 random;
};

Order order_from_environment() {
  const char* variable = std::getenv("PYPOSE_OPS_SIMT_ORDER");
  const std::string text = variable == nullptr || *variable == 0 ? "ascending" : variable;
  Order order;
  if (text == "ascending") {
    return order;
  }
  if (text == "descending") {
    order.kind = Order::descending;
    return order;
  }
  if (text.rfind("shuffle:", 0) == 0 && text.size() > 8 && text.find_first_not_of("0123456789", 8) == std::string::npos) {
    order.kind = Order::shuffled;
    order.random.seed(std::stoull(text.substr(8)));
    return order;
  }
  throw std::runtime_error(
      "simt: PYPOSE_OPS_SIMT_ORDER must be ascending, descending or shuffle:<seed>, got '" + text + "'");
}

void permute(unsigned* numbers, unsigned count, Order& order) {
  for (unsigned i = 0; i < count; ++i) {
    numbers[i] = order.kind == Order::descending ? count - 1 - i : i;
  }
  if (order.kind == Order::shuffled) {
    for (unsigned i = count; i > 1; --i) {
      std::swap(numbers[i - 1], numbers[order.random() % i]);
    }
  }
}

void set_thread_order(Order& order) {
  Machine& m = machine;
  unsigned warps[kMaxThreads / kWarp];
  const unsigned warp_count = (m.count + kWarp - 1) / kWarp;
  permute(warps, warp_count, order);
  permute(m.lane_order, kWarp, order);
  unsigned filled = 0;
  for (unsigned warp = 0; warp < warp_count; ++warp) {
    for (unsigned lane : m.lane_order) {
      const unsigned number = warps[warp] * kWarp + lane;
      if (number < m.count) {
        m.order[filled++] = number;
      }
    }
  }
}

// Block numbers in order, without a list of them: i * step + first modulo the count, step coprime to it.
struct BlockOrder {
  uint64_t count, first = 0, step = 1;

  BlockOrder(uint64_t count, Order& order) : count(count) {
    if (order.kind == Order::descending) {
      first = step = count - 1;
    } else if (order.kind == Order::shuffled) {
      first = order.random() % count;
      do {
        step = order.random() % (1u << 20) + 1;
      } while (std::gcd(step, count) != 1);
    }
  }
  uint64_t operator[](uint64_t i) const {
    return count == 1 ? 0 : (i * step % count + first) % count;
  }
};

// ---- launches ----

void check_launch(dim3 grid, dim3 block, size_t shared_bytes) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  std::ostringstream error;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 2147483647u || grid.y > 65535u || grid.z > 65535u) {
    error << "grid (" << grid.x << ", " << grid.y << ", " << grid.z << ") must be from 1 to (2147483647, 65535, 65535)";
  } else if (threads == 0 || threads > kMaxThreads || block.x > 1024 || block.y > 1024 || block.z > 64) {
    error << "block (" << block.x << ", " << block.y << ", " << block.z
          << ") must have 1 to 1024 threads and be at most (1024, 1024, 64)";
  } else if (shared_bytes > kMaxSharedBytes) {
    error << "dynamic shared memory must be at most " << kMaxSharedBytes << " bytes, got " << shared_bytes;
  } else {
    return;
  }
  throw std::runtime_error("simt: kernel launch failed: invalid configuration argument: " + error.str());
}

// Not memset: AddressSanitizer watches that, and would report the space it keeps between the variables.
__attribute__((no_sanitize("address"))) void fill_static_shared() {
#ifdef __SANITIZE_ADDRESS__
  for (volatile char* byte = __start_simt_shared; byte < __stop_simt_shared; ++byte) {
    *byte = static_cast<char>(0xff);
  }
#else
  std::memset(__start_simt_shared, 0xff, static_cast<size_t>(__stop_simt_shared - __start_simt_shared));
#endif
}

std::string wait_of(const Thread& thread) {
  std::ostringstream text;
  if (thread.state == State::at_barrier) {
    text << "at __syncthreads, " << text_of(thread.place);
  } else {
    text << "in " << kWarpOpNames[static_cast<int>(thread.op)] << " with mask 0x" << std::hex << thread.mask << std::dec
         << ", " << text_of(thread.place);
  }
  return text.str();
}

// "64 threads (0, 1, 2, ...) wait at ...; 64 threads (32, 33, 34, ...) wait in ..."
std::string describe_deadlock() {
  const Machine& m = machine;
  std::map<std::string, std::vector<unsigned>> waits;
  for (unsigned i = 0; i < m.count; ++i) {
    waits[m.threads[i].state == State::returned ? "returned" : "wait " + wait_of(m.threads[i])].push_back(i);
  }
  std::ostringstream text;
  text << "simt: deadlock in block " << text_of(registers.block);
  const char* separator = ": ";
  for (const auto& [what, threads] : waits) {
    text << separator << threads.size() << " threads (";
    for (size_t i = 0; i < threads.size() && i < 3; ++i) {
      text << (i ? ", " : "") << threads[i];
    }
    text << (threads.size() > 3 ? ", ...) " : ") ") << what;
    separator = "; ";
  }
  return text.str();
}

// Takes the stacks away from the threads that will never go on.
[[noreturn]] void abandon_launch(std::string error) {
  Machine& m = machine;
  m.idle.clear();
  for (auto& fiber : m.fibers) {
    fiber->reset();
    m.idle.push_back(fiber.get());
  }
  m.error = {};
  m.shared.reset();
  throw std::runtime_error(error);
}

void run_block(size_t shared_bytes) {
  Machine& m = machine;
  // Exactly as large as asked for, so that AddressSanitizer sees the first byte beyond.
  m.shared.reset(shared_bytes > 0 ? new char[shared_bytes] : nullptr);
  if (shared_bytes > 0) {
    std::memset(m.shared.get(), 0xff, shared_bytes);
  }
  // Without a barrier nobody can use shared memory, so that what the last block left is still the fill.
  if (std::exchange(m.barrier_used, false)) {
    fill_static_shared();
  }
  for (unsigned i = 0; i < m.count; ++i) {
    m.threads[i].state = State::not_started;
  }
  for (unsigned warp = 0; warp * kWarp < m.count; ++warp) {
    const unsigned lanes = m.count - warp * kWarp;
    m.warps[warp] = {0, lanes < kWarp ? ~0u << lanes : 0};
  }
  m.started = m.ready_first = m.ready_count = m.arrived = m.votes = m.returned = 0;
  m.running = &m.os_thread;
  leave(false);
  if (!m.error.empty()) {
    abandon_launch(m.error);
  }
  if (m.returned != m.count) {
    abandon_launch(describe_deadlock());
  }
}

}  // namespace

void run_blocks(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(const void*), const void* context) {
  check_launch(grid, block, shared_bytes);
  Order order = order_from_environment();
  const std::lock_guard<std::mutex> lock(one_launch);
  Machine& m = machine;
  m.body = body;
  m.context = context;
  m.count = block.x * block.y * block.z;
  m.barrier_used = true;
  for (unsigned i = 0; i < m.count; ++i) {
    m.threads[i].index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
  }
  registers.block_size = block;
  registers.grid_size = grid;
  const BlockOrder blocks(uint64_t{grid.x} * grid.y * grid.z, order);
  for (uint64_t i = 0; i < blocks.count; ++i) {
    const uint64_t number = blocks[i];
    registers.block = {
        static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
        static_cast<unsigned>(number / grid.x / grid.y)};
    if (i == 0 || order.kind == Order::shuffled) {
      set_thread_order(order);
    }
    run_block(shared_bytes);
  }
  m.shared.reset();
}

void* dynamic_shared() {
  return machine.shared.get();
}

unsigned lane() {
  return number_of(*machine.current) % kWarp;
}

void stop(const char* message, Place at) {
  Machine& m = machine;
  m.error = std::string("simt: ") + message + " in block " + text_of(registers.block) + ", thread " +
      text_of(registers.thread) + ", " + text_of(at);
  m.running->switch_to(m.os_thread, false);
  __builtin_unreachable();
}

int barrier(Vote vote, bool predicate, Place at) {
  Machine& m = machine;
  Thread& self = *m.current;
  if (m.arrived > 0 && (at.line != m.barrier_place.line || std::strcmp(at.file, m.barrier_place.file) != 0)) {
    stop(("a thread came to this __syncthreads while others wait at " + text_of(m.barrier_place)).c_str(), at);
  }
  self.state = State::at_barrier;
  self.vote = vote;
  self.place = m.barrier_place = at;
  m.barrier_used = true;
  m.votes += predicate;
  if (++m.arrived + m.returned == m.count) {
    release_barrier();
  }
  wait();
  return static_cast<int>(self.result);
}

uint64_t warp_collective(WarpOp op, unsigned mask, uint64_t value, unsigned source, Place at) {
  Machine& m = machine;
  Thread& self = *m.current;
  const unsigned own = number_of(self) % kWarp;
  if ((mask >> own & 1u) == 0) {
    stop((std::string(kWarpOpNames[static_cast<int>(op)]) + " with a mask that excludes the calling lane").c_str(), at);
  }
  self.state = State::in_warp_op;
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
