// Becoming a worker.
// SPDX-License-Identifier: Apache-2.0
#include "worker/startup.hpp"

#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "worker/devices.hpp"

namespace outboard::worker {
namespace {

bool read_number(std::string_view text, int* value) {
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return status == std::errc() && end == text.data() + text.size() && *value >= 0;
}

bool read_value(const std::string& name, const std::string& value, Options* options) {
  int number = 0;
  if (name == "--driver") {
    options->driver = value;
  } else if (name == "--id") {
    options->id = value;
    return value.size() == 32;
  } else if (name == "--control-fd") {
    return read_number(value, &options->control_fd);
  } else if (name == "--agent-socket") {
    options->agent_socket = value;
  } else if (name == "--warm-device") {
    if (!read_number(value, &number)) return false;
    options->warm_devices.push_back(number);
  } else if (name == "--environment") {
    const size_t equals = value.find('=');
    if (equals == std::string::npos || equals == 0) return false;
    options->environment.emplace_back(value.substr(0, equals), value.substr(equals + 1));
  } else {
    return false;
  }
  return true;
}

}  // namespace

bool read_options(int argc, char** argv, Options* options, std::string* error) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--inventory" || name == "--rehearse" || name == "--unconfined" ||
        name == "--own-files") {
      if (name == "--inventory") options->inventory = true;
      if (name == "--rehearse") options->rehearsal = true;
      if (name == "--unconfined") options->confined = false;
      if (name == "--own-files") options->own_files = true;
      continue;
    }
    const char* value = ++i < argc ? argv[i] : nullptr;
    if (!value || !read_value(name, value, options)) {
      *error = "the option " + name + " is unknown, or its value is none";
      return false;
    }
  }
  if (options->driver.empty()) {
    *error = "--driver PATH is needed";
  } else if (!options->inventory && !options->rehearsal &&
             (options->control_fd < 0 || options->id.empty())) {
    *error = "--control-fd N and --id HEX32 are needed, or --inventory or --rehearse";
  } else {
    return true;
  }
  return false;
}

void use_legacy_layout(char** argv) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  (void)argv;  // the sanitizers' own layout leaves no choice
#else
  const int now = ::personality(0xffffffff);
  if (now < 0 || (now & ADDR_COMPAT_LAYOUT) != 0) return;
  if (::personality(static_cast<unsigned long>(now) | ADDR_COMPAT_LAYOUT) < 0) return;
  ::execv("/proc/self/exe", argv);
#endif
}

void restrict_process() {
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  ::prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
}

Confinement confinement_of(const Options& options) {
  namespace fs = std::filesystem;
  Confinement wanted;
  wanted.on = options.confined && !options.inventory;
  wanted.own_files = options.own_files;
  wanted.calls_agent = !options.agent_socket.empty();
  std::error_code failed;
  const fs::path driver(options.driver);
  for (const fs::path& file :
       {driver, fs::canonical(driver, failed), fs::read_symlink("/proc/self/exe", failed)}) {
    if (file.has_parent_path()) wanted.reads.push_back(file.parent_path());
  }
  if (const char* cache = std::getenv("CUDA_CACHE_PATH")) {
    fs::create_directories(cache, failed);
    wanted.writes = cache;
  }
  return wanted;
}

std::map<int, uint64_t> warm(const Driver& driver, const std::vector<int>& devices) {
  std::map<int, uint64_t> context_bytes;
  for (const int index : devices) {
    CUdevice device = 0;
    CUcontext context = nullptr;
    if (driver.cuDeviceGet(&device, index) != CUDA_SUCCESS ||
        driver.cuDevicePrimaryCtxRetain(&context, device) != CUDA_SUCCESS) {
      continue;
    }
    context_bytes[index] = measure_context_bytes(driver, device);
  }
  return context_bytes;
}

bool claim_devices(const Driver& driver, const std::vector<std::pair<int, uint64_t>>& claimed,
                   const std::map<int, uint64_t>& context_bytes, std::vector<Device>* devices,
                   std::string* error) {
  for (const auto& [index, share_bytes] : claimed) {
    Device device;
    if (driver.cuDeviceGet(&device.handle, index) != CUDA_SUCCESS) {
      *error = "the driver has no device " + std::to_string(index);
      return false;
    }
    device.share_bytes = share_bytes;
    const auto measured = context_bytes.find(index);
    device.context_bytes = measured != context_bytes.end()
                               ? measured->second
                               : measure_context_bytes(driver, device.handle);
    devices->push_back(device);
  }
  return true;
}

}  // namespace outboard::worker
