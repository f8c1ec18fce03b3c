// Lets binaries that a new compiler made beside a new C library run on older ones, down to those of manylinux_2_28 (glibc
// 2.28, libstdc++ of GCC 8): what the newer headers call and the older libraries lack, kept inside of each binary.
// common/glibc.h has the rest. tests/packaging/test_library.py checks the result.
#include <exception>
#include <new>
#include <sstream>

#if defined(__linux__) && defined(__GLIBCXX__)

// libstdc++ asks it whether reference counts need atomic instructions (glibc 2.32). They always do here.
extern "C" {
extern char __libc_single_threaded;
char __libc_single_threaded = 0;
}

namespace std {

// GCC 11 and newer call it for `new T[n]` with a negative n.
void __throw_bad_array_new_length() {
  throw bad_array_new_length();
}

// Default constructors, which became functions of their own in GCC 9.
template basic_ostringstream<char>::basic_ostringstream();
template basic_stringstream<char>::basic_stringstream();

#if __GNUC__ >= 11
// The halves of exception_ptr's copy constructor and destructor, which are inline since GCC 11 and were functions before.
extern "C" void pypose_ops_copy(void* to, const void* from) __asm__("_ZNSt15__exception_ptr13exception_ptrC1ERKS0_");
extern "C" void pypose_ops_destroy(void* pointer) __asm__("_ZNSt15__exception_ptr13exception_ptrD1Ev");

void __exception_ptr::exception_ptr::_M_addref() noexcept {
  void* never_destroyed;
  pypose_ops_copy(&never_destroyed, this);
}

void __exception_ptr::exception_ptr::_M_release() noexcept {
  void* copy = _M_exception_object;
  _M_exception_object = nullptr;
  pypose_ops_destroy(&copy);
}
#endif

}  // namespace std

#endif
