// Starting threads that stay out of the program's way.
// SPDX-License-Identifier: Apache-2.0
#include "client/threads.hpp"

#include <pthread.h>
#include <signal.h>

namespace outboard::client {

bool start_thread(const char* name, void* (*body)(void*), void* argument) {
  sigset_t all, before;
  ::sigfillset(&all);
  pthread_attr_t attributes;
  if (::pthread_attr_init(&attributes) != 0) return false;
  ::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  ::pthread_attr_setstacksize(&attributes, 256u << 10);
  // The new thread inherits the mask, so that none of the program's signals is ever run in it.
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  int error = ::pthread_create(&thread, &attributes, body, argument);
  if (error != 0) {
    // Thread-local storage is taken from the stack: a program with much of it needs a larger one.
    ::pthread_attr_setstacksize(&attributes, 8u << 20);
    error = ::pthread_create(&thread, &attributes, body, argument);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::pthread_attr_destroy(&attributes);
  if (error == 0) ::pthread_setname_np(thread, name);
  return error == 0;
}

}  // namespace outboard::client
