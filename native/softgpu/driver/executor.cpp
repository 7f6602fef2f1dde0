// The threads that work off streams.
// SPDX-License-Identifier: Apache-2.0
#include "executor.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "stream.hpp"

namespace softgpu {
namespace {

struct Pool {
  std::mutex mutex;
  std::condition_variable work;
  std::deque<std::shared_ptr<Stream>> ready;
  size_t idle = 0;
};

Pool& pool() {
  static Pool& value = *new Pool;  // threads may outlive main()
  return value;
}

void work() {
  prctl(PR_SET_NAME, "softgpu-stream");
  prctl(PR_SET_TIMERSLACK, 1000);  // ns; the polls of WaitValue sleep for microseconds
  Pool& p = pool();
  std::unique_lock lock(p.mutex);
  for (;;) {
    if (p.ready.empty()) {
      ++p.idle;
      // Look again a few times before sleeping: launches often come in a row.
      for (int i = 0; i < 10 && p.ready.empty(); ++i) {
        lock.unlock();
        sched_yield();
        lock.lock();
      }
      p.work.wait(lock, [&] { return !p.ready.empty(); });
      --p.idle;
    }
    std::shared_ptr<Stream> stream = std::move(p.ready.front());
    p.ready.pop_front();
    lock.unlock();
    stream->drain();
    stream.reset();
    lock.lock();
  }
}

}  // namespace

void Executor::run(std::shared_ptr<Stream> stream) {
  Pool& p = pool();
  std::unique_lock lock(p.mutex);
  p.ready.push_back(std::move(stream));
  if (p.idle >= p.ready.size()) {
    lock.unlock();
    p.work.notify_one();
    return;
  }
  // Signals are the program's: our threads take none.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread(work).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace softgpu
