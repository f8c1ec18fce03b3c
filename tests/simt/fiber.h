// A stack of its own for each simulated GPU thread that has to wait for others, and the switch between such stacks.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {

class Fiber {
 public:
  // The stack of the OS thread that is running.
  Fiber() = default;
  // A new stack; the first switch to it calls entry, which must never return. The number only spreads the stacks'
  // tops over the cache sets.
  Fiber(void (*entry)(), size_t number);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Whether the address is on this stack.
  bool owns(const void* address) const {
    return address >= stack_ && address < stack_ + size_;
  }

  // Forgets what was running on the stack: the next switch calls entry again.
  void reset();

  // Leaves this fiber, on which the caller must be running, for another; returns when another one switches back.
  // parks: nothing but the entry function is left on this stack, so the sanitizer may drop what it knows of it.
  void switch_to(Fiber& to, bool parks);

 private:
  static void start();
  void arrived();

  void (*entry_)() = nullptr;
  char* stack_ = nullptr;
  size_t colour_ = 0;
#if defined(__x86_64__)
  void* stack_pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
  // What AddressSanitizer wants to hear at every switch; the bounds of an OS thread's stack come from it.
  void* fake_stack_ = nullptr;
  const void* bottom_ = nullptr;
  size_t size_ = 0;
};

}  // namespace simt
