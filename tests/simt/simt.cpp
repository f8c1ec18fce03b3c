// Runs the blocks of a launch one by one. A thread starts on whatever fiber is idle and keeps it only when it has to
// wait; a kernel that never synchronises therefore runs its threads back to back on one stack.
#include <link.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "machine.h"
#include "order.h"
#include "trace.h"

namespace simt {

Registers registers;
Machine& machine = *new Machine();  // never destroyed: a launch may still run while the process exits

namespace {

constexpr size_t kMaxSharedBytes = 48 * 1024;  // static and dynamic together; more needs an opt-in
constexpr uint64_t kRegisters = 65536;         // of a multiprocessor, and so the most that a block may take
constexpr ptrdiff_t kFillOften = 64 * 1024;
std::mutex one_launch;

std::string text_of(const uint3& index) {
  std::ostringstream text;
  text << "(" << index.x << ", " << index.y << ", " << index.z << ")";
  return text.str();
}

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

void set_thread_order(Order& order) {
  Machine& m = machine;
  unsigned warps[kMaxThreads / kWarp];
  const unsigned warp_count = (m.count + kWarp - 1) / kWarp;
  order.permute(warps, warp_count);
  order.permute(m.lane_order, kWarp);
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

std::map<const void*, Limits>& known_limits() {
  static auto& limits = *new std::map<const void*, Limits>();
  return limits;
}

void check_launch(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const auto found = known_limits().find(kernel);
  const Limits limits = found == known_limits().end() ? Limits{0, 0} : found->second;
  // Registers are handed out to warps, 8 a thread at a time.
  const uint64_t registers = (threads + kWarp - 1) / kWarp * kWarp * ((limits.registers + 7) / 8 * 8);
  std::ostringstream error;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 2147483647u || grid.y > 65535u || grid.z > 65535u) {
    error << "grid (" << grid.x << ", " << grid.y << ", " << grid.z << ") must be from 1 to (2147483647, 65535, 65535)";
  } else if (threads == 0 || threads > kMaxThreads || block.x > 1024 || block.y > 1024 || block.z > 64) {
    error << "block (" << block.x << ", " << block.y << ", " << block.z
          << ") must have 1 to 1024 threads and be at most (1024, 1024, 64)";
  } else if (limits.static_shared_bytes + shared_bytes > kMaxSharedBytes) {
    error << "shared memory must be at most " << kMaxSharedBytes << " bytes, got " << limits.static_shared_bytes
          << " static and " << shared_bytes << " dynamic";
  } else if (registers > kRegisters) {
    error << "registers of a block must be at most " << kRegisters << ", got " << threads << " threads of "
          << limits.registers;
  } else {
    return;
  }
  throw std::runtime_error("simt: kernel launch failed: invalid configuration argument: " + error.str());
}

// This thread's __shared__ variables: the thread-local storage of this library.
StaticShared static_shared() {
  StaticShared found{nullptr, nullptr};
#ifndef __SANITIZE_ADDRESS__
  static thread_local volatile char any;
  any = 0;  // until one of its variables is touched, a thread has no such storage
  dl_iterate_phdr(
      [](dl_phdr_info* library, size_t, void* out) {
        for (int i = 0; i < library->dlpi_phnum; ++i) {
          const ElfW(Phdr)& part = library->dlpi_phdr[i];
          char* memory = static_cast<char*>(library->dlpi_tls_data);
          const char* inside = const_cast<const char*>(&any);
          if (part.p_type == PT_TLS && memory != nullptr && memory <= inside && inside < memory + part.p_memsz) {
            *static_cast<StaticShared*>(out) = {memory, memory + part.p_memsz};
          }
        }
        return 0;
      },
      &found);
#endif
  return found;
}

std::string wait_of(const Thread& thread) {
  std::ostringstream text;
  if (thread.state == State::at_barrier) {
    text << "at __syncthreads, " << text_of(thread.place);
  } else {
    text << "in " << name_of(thread.op) << " with mask 0x" << std::hex << thread.mask << std::dec
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

void run_block(size_t shared_bytes, bool first) {
  Machine& m = machine;
  // Exactly as large as asked for, so that AddressSanitizer sees the first byte beyond.
  m.shared.reset(shared_bytes > 0 ? new char[shared_bytes] : nullptr);
  if (shared_bytes > 0) {
    std::memset(m.shared.get(), 0xff, shared_bytes);
  }
  // Kernels that never synchronise have no use for shared memory: they are spared the fill. Of all operators together it
  // would take longer than a block: there the first of a launch stands for the others.
  if (std::exchange(m.synchronised, false) && (first || m.fixed.end - m.fixed.begin <= kFillOften)) {
    std::fill(m.fixed.begin, m.fixed.end, static_cast<char>(0xff));
  }
  for (unsigned i = 0; i < m.count; ++i) {
    m.threads[i].state = State::not_started;
    m.threads[i].place = {};
  }
  for (unsigned warp = 0; warp * kWarp < m.count; ++warp) {
    const unsigned lanes = m.count - warp * kWarp;
    m.warps[warp] = {0, lanes < kWarp ? ~0u << lanes : 0};
  }
  m.started = m.ready_first = m.ready_count = m.arrived = m.votes = m.returned = 0;
  m.running = &m.os_thread;
  trace_block({m.fixed.begin, m.fixed.end, m.shared.get(), m.shared.get() + shared_bytes});
  leave(false);
  trace_block_end();
  if (!m.error.empty()) {
    abandon_launch(m.error);
  }
  if (m.returned != m.count) {
    abandon_launch(describe_deadlock());
  }
}

}  // namespace

void wait() {
  Thread* self = machine.current;
  self->fiber = machine.running;
  leave(false);
  machine.current = self;
  self->state = State::running;
  registers.thread = self->index;
}

std::string text_of(const Place& place) {
  return std::string(place.file) + ":" + std::to_string(place.line);
}

void set_limits(const void* kernel, Limits limits) {
  known_limits()[kernel] = limits;
}

void run_blocks(
    const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, void (*body)(const void*), const void* context) {
  check_launch(kernel, grid, block, shared_bytes);
  Order order;
  const std::lock_guard<std::mutex> lock(one_launch);
  Machine& m = machine;
  m.body = body;
  m.context = context;
  m.count = block.x * block.y * block.z;
  m.synchronised = true;
  m.fixed = static_shared();
  for (unsigned i = 0; i < m.count; ++i) {
    m.threads[i].index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
  }
  registers.block_size = block;
  registers.grid_size = grid;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  order.start_blocks(blocks);
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t number = order.block(i);
    registers.block = {
        static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
        static_cast<unsigned>(number / grid.x / grid.y)};
    if (i == 0 || order.shuffled()) {
      set_thread_order(order);
    }
    run_block(shared_bytes, i == 0);
  }
  m.shared.reset();
}

void* dynamic_shared() {
  return machine.shared.get();
}

void stop(const char* message, Place at) {
  Machine& m = machine;
  m.error = std::string("simt: ") + message + " in block " + text_of(registers.block) + ", thread " +
      text_of(registers.thread) + ", " + text_of(at);
  m.running->switch_to(m.os_thread, false);
  __builtin_unreachable();
}

}  // namespace simt

// For tests/simt/limits.py, through ctypes.
extern "C" __attribute__((visibility("default"))) void simt_set_limits(
    const void* kernel, unsigned registers, unsigned static_shared_bytes) {
  simt::set_limits(kernel, {registers, static_shared_bytes});
}
