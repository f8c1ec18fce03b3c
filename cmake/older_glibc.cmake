# The static CUDA runtime calls functions that glibc 2.34 moved from libpthread, libdl and librt into libc, where their
# symbols have a new version: linked with a newer glibc it needs a newer glibc. So it is linked with libraries of the old
# names that have these functions under their first versions. Every glibc has both, the newer ones for older binaries.
# tests/packaging/test_library.py checks the result.
function(pypose_ops_older_glibc target)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    set(first GLIBC_2.2.5)
    set(dlmopen GLIBC_2.3.4)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64")
    set(first GLIBC_2.17)
    set(dlmopen GLIBC_2.17)
  else()
    return()
  endif()
  set(pthread_functions
    pthread_condattr_setpshared pthread_create pthread_detach pthread_getspecific pthread_join pthread_key_create
    pthread_key_delete pthread_kill pthread_mutex_trylock pthread_mutexattr_destroy pthread_mutexattr_init
    pthread_mutexattr_setpshared pthread_mutexattr_settype pthread_once pthread_rwlock_destroy pthread_rwlock_init
    pthread_rwlock_rdlock pthread_rwlock_timedrdlock pthread_rwlock_timedwrlock pthread_rwlock_tryrdlock
    pthread_rwlock_trywrlock pthread_rwlock_unlock pthread_rwlock_wrlock pthread_rwlockattr_destroy
    pthread_rwlockattr_init pthread_rwlockattr_setpshared pthread_setspecific pthread_spin_destroy pthread_spin_init
    pthread_spin_lock pthread_spin_trylock pthread_spin_unlock sem_destroy sem_init sem_post sem_timedwait sem_trywait
    sem_wait)
  set(dl_functions dlclose dlerror dlopen dlsym dlvsym dlmopen)
  set(rt_functions shm_open shm_unlink)
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/older_glibc)
  foreach(library IN ITEMS pthread.0 dl.2 rt.1)
    string(REPLACE "." ";" library ${library})
    list(GET library 0 name)
    list(GET library 1 number)
    set(source "")
    set(versions "")
    foreach(function IN LISTS ${name}_functions)
      string(APPEND source "extern \"C\" __attribute__((visibility(\"default\"))) void ${function}() {}\n")
      set(version ${first})
      if(function STREQUAL "dlmopen")
        set(version ${dlmopen})
      endif()
      string(APPEND versions "${version} { ${function}; };\n")
    endforeach()
    # One block per version.
    string(REGEX REPLACE "; };\n${first} { " "; " versions "${versions}")
    file(CONFIGURE OUTPUT ${folder}/${name}.cpp CONTENT "${source}" @ONLY)
    file(CONFIGURE OUTPUT ${folder}/${name}.map CONTENT "${versions}" @ONLY)
    add_library(older_${name} SHARED ${folder}/${name}.cpp)
    set_target_properties(older_${name} PROPERTIES OUTPUT_NAME ${name} SOVERSION ${number} LINKER_LANGUAGE CXX
      LIBRARY_OUTPUT_DIRECTORY ${folder})
    target_link_options(older_${name} PRIVATE -nostdlib LINKER:--version-script=${folder}/${name}.map)
    target_link_libraries(${target} PRIVATE older_${name})
  endforeach()
  # They are empty, and must not be found when the library is loaded from where it was built.
  set_target_properties(${target} PROPERTIES SKIP_BUILD_RPATH ON)
endfunction()
