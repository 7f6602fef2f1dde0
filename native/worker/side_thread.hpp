// One thread beside the loop, for driver calls that can take seconds (compiling, linking).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace outboard::worker {

class SideThread {
 public:
  /// `wake_fd` is an eventfd that is written when a job is done.
  explicit SideThread(int wake_fd) : wake_fd_(wake_fd) {}
  ~SideThread();
  SideThread(const SideThread&) = delete;
  SideThread& operator=(const SideThread&) = delete;

  /// Runs `work` on the thread and then `finish` on the loop's, in the order of the calls.
  void start(std::function<void()> work, std::function<void()> finish);
  /// Waits for the job that is running; no other is begun.
  void stop();
  /// Runs what has to be finished; true if there was anything.
  bool poll();

 private:
  struct Job {
    std::function<void()> work;
    std::function<void()> finish;
  };
  void run();

  int wake_fd_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::deque<Job> jobs_;
  std::deque<Job> done_;
  std::thread thread_;
};

}  // namespace outboard::worker
