#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// simt_switch(save, load): pushes the callee-saved registers, stores the stack pointer in *save, continues on the stack
// `load`. Rounding modes and flush-to-zero (mxcsr, x87 control word) are left alone on purpose: no kernel changes
// them, they belong to the OS thread, and a fiber kept from an earlier launch must not bring old ones back.
#if defined(__x86_64__)
extern "C" void simt_switch(void** save, void* load) noexcept;
// A jump instead of a return: the processor's return predictor is wrong at every switch of stacks.
asm(R"(
.text
.p2align 4
.globl simt_switch
.hidden simt_switch
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmp *%rcx
.size simt_switch, .-simt_switch
)");
#endif

namespace simt {
namespace {

// Only touched pages cost memory. A sanitizer's report is written on the stack of the fiber that caused it.
constexpr size_t kStackBytes = 256 * 1024;

Fiber* switching_from = nullptr;
Fiber* switching_to = nullptr;

}  // namespace

Fiber::Fiber(void (*entry)(), size_t number) : entry_(entry), colour_(number % 16 * 192) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(
      nullptr, kStackBytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  // The lowest page stays closed: a kernel that overruns its stack crashes instead of writing into the next one.
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
    throw std::bad_alloc();
  }
  stack_ = static_cast<char*>(memory) + page;
  bottom_ = stack_;
  size_ = kStackBytes;
  reset();
}

Fiber::~Fiber() {
  if (stack_ != nullptr) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    munmap(stack_ - page, kStackBytes + page);
  }
}

void Fiber::reset() {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack_, kStackBytes);
#endif
  fake_stack_ = nullptr;
  char* top = stack_ + kStackBytes - colour_;
#if defined(__x86_64__)
  // Six registers, the address to jump to, and a return address of zero, where debuggers stop unwinding.
  void** frame = reinterpret_cast<void**>(top) - 8;
  for (int i = 0; i < 8; ++i) {
    frame[i] = nullptr;
  }
  frame[6] = reinterpret_cast<void*>(&Fiber::start);
  stack_pointer_ = frame;
#else
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = static_cast<size_t>(top - stack_);
  context_.uc_link = nullptr;
  makecontext(&context_, &Fiber::start, 0);
#endif
}

void Fiber::start() {
  switching_to->arrived();
  switching_to->entry_();
  __builtin_trap();
}

void Fiber::arrived() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack_, &switching_from->bottom_, &switching_from->size_);
#endif
}

void Fiber::switch_to(Fiber& to, [[maybe_unused]] bool parks) {
  switching_from = this;
  switching_to = &to;
#ifdef __SANITIZE_ADDRESS__
  fake_stack_ = nullptr;
  __sanitizer_start_switch_fiber(parks ? nullptr : &fake_stack_, to.bottom_, to.size_);
#endif
#if defined(__x86_64__)
  simt_switch(&stack_pointer_, to.stack_pointer_);
#else
  swapcontext(&context_, &to.context_);
#endif
  arrived();
}

}  // namespace simt
