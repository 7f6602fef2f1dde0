// Hello and welcome.
// SPDX-License-Identifier: Apache-2.0
#include "worker/hello.hpp"

#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "worker/memory.hpp"

namespace outboard::worker {
namespace {

using nlohmann::json;

template <typename T>
T number(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number_integer() ? found->get<T>() : T{};
}

std::string text(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

bool usable(const Range& window) {
  constexpr uint64_t most_bytes = uint64_t{1} << 46;
  constexpr uint64_t address_end = uint64_t{1} << 47;
  return window.bytes != 0 && window.bytes <= most_bytes &&
         window.base % Memory::granule_bytes == 0 && window.bytes % Memory::granule_bytes == 0 &&
         window.base != 0 && window.base < address_end && window.base + window.bytes <= address_end;
}

bool overlap(const Range& one, const Range& other) {
  return one.base < other.base + other.bytes && other.base < one.base + one.bytes;
}

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Field 22 of /proc/PID/stat, counted after the name, which may hold anything but ends with the
// last ')'.
uint64_t start_time(int64_t pid) {
  const std::string line = first_line(("/proc/" + std::to_string(pid) + "/stat").c_str());
  size_t at = line.rfind(')');
  for (int field = 2; at != std::string::npos && field < 22; ++field) at = line.find(' ', at + 1);
  return at == std::string::npos ? 0 : std::strtoull(line.c_str() + at, nullptr, 10);
}

}  // namespace

bool read_hello(std::span<const std::byte> payload, size_t devices, Hello* hello,
                std::string* error) {
  const std::string_view bytes(reinterpret_cast<const char*>(payload.data()), payload.size());
  const json document = json::parse(bytes, nullptr, false);
  const auto windows = document.is_object() ? document.find("windows") : document.end();
  if (!document.is_object() || windows == document.end() || !windows->is_array()) {
    *error = "the hello is not what it should be";
    return false;
  }
  if (windows->size() != devices) {
    *error = "the hello has " + std::to_string(windows->size()) + " windows for " +
             std::to_string(devices) + " devices";
    return false;
  }
  hello->windows.clear();
  for (const json& entry : *windows) {
    if (!entry.is_object()) {
      *error = "a window of the hello is not what it should be";
      return false;
    }
    const Range window{number<uint64_t>(entry, "base"), number<uint64_t>(entry, "size")};
    bool fits = usable(window);
    for (const Range& other : hello->windows) fits = fits && !overlap(window, other);
    if (!fits) {
      *error = "a window of the hello is not aligned, not possible, or overlaps another";
      return false;
    }
    hello->windows.push_back(window);
  }
  hello->pid = number<int64_t>(document, "pid");
  hello->start_time = number<uint64_t>(document, "start_time");
  hello->boot_id = text(document, "boot_id");
  hello->pid_namespace = number<uint64_t>(document, "pid_namespace");
  hello->program = text(document, "program");
  hello->uid = number<uint32_t>(document, "uid");
  return true;
}

bool is_on_this_host(const Hello& hello) {
  return !hello.boot_id.empty() && first_line("/proc/sys/kernel/random/boot_id") == hello.boot_id;
}

UniqueFd watch_client(const Hello& hello) {
  struct stat space = {};
  if (hello.pid <= 0 || hello.pid > INT32_MAX || hello.start_time == 0 ||
      ::stat("/proc/self/ns/pid", &space) != 0 || space.st_ino != hello.pid_namespace ||
      !is_on_this_host(hello)) {
    return UniqueFd();
  }
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(hello.pid), 0)));
  // Asked after the descriptor is there, so that it cannot be of another process with the same
  // number. To a worker with a user of its own other processes are hidden: its client lives, it has
  // just written to it, and whoever names another process harms its own session alone.
  const uint64_t started = start_time(hello.pid);
  if (!fd || (started != 0 && started != hello.start_time)) return UniqueFd();
  return fd;
}

std::vector<std::byte> make_welcome(const std::string& json) {
  std::vector<std::byte> bytes(12 + json.size());
  const uint16_t version[2] = {1, 0};
  const auto length = static_cast<uint32_t>(json.size());
  std::memcpy(bytes.data(), "OUTW", 4);
  std::memcpy(bytes.data() + 4, version, sizeof version);
  std::memcpy(bytes.data() + 8, &length, sizeof length);
  std::memcpy(bytes.data() + 12, json.data(), json.size());
  return bytes;
}

}  // namespace outboard::worker
