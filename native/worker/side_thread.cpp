// The thread for long driver calls.
// SPDX-License-Identifier: Apache-2.0
#include "worker/side_thread.hpp"

#include <sys/prctl.h>
#include <unistd.h>

#include <cstdint>

namespace outboard::worker {

SideThread::~SideThread() { stop(); }

void SideThread::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void SideThread::start(std::function<void()> work, std::function<void()> finish) {
  const std::lock_guard lock(mutex_);
  jobs_.push_back({std::move(work), std::move(finish)});
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  changed_.notify_all();
}

bool SideThread::poll() {
  std::deque<Job> done;
  {
    const std::lock_guard lock(mutex_);
    done.swap(done_);
  }
  for (const Job& job : done) job.finish();
  return !done.empty();
}

void SideThread::run() {
  ::prctl(PR_SET_NAME, "outboard-side");
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    if (stopping_) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job.work();
    lock.lock();
    done_.push_back(std::move(job));
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_fd_, &one, sizeof one);
  }
}

}  // namespace outboard::worker
