// What programs set for core dumps of a GPU, the same for every libcuda.so.1.
// SPDX-License-Identifier: Apache-2.0
#include "core_dumps.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <map>
#include <mutex>
#include <string>

namespace outboard {
namespace {

constexpr size_t path_bytes = 1024;

struct Settings {
  bool on_exception = false;
  bool by_user = false;
  std::string file;
  uint32_t generation = 0;
};

struct All {
  std::mutex mutex;
  std::map<uint64_t, Settings> settings;  ///< 0: what contexts begin with
};

Settings& settings_of(All& all, CoreDumpOwner owner) {
  const auto [found, fresh] = all.settings.emplace(owner.context, all.settings[0]);
  if (fresh && (owner.flags & CU_CTX_COREDUMP_ENABLE) != 0) found->second.on_exception = true;
  return found->second;
}

All& all() {
  static auto* const instance = new All;
  return *instance;
}

/// How large a value is; 0: there is no such setting. Two are the process's alone.
size_t bytes_of(CoreDumpOwner owner, CUcoredumpSettings what) {
  switch (what) {
    case CU_COREDUMP_ENABLE_ON_EXCEPTION:
    case CU_COREDUMP_TRIGGER_HOST:
    case CU_COREDUMP_LIGHTWEIGHT:
      return sizeof(bool);
    case CU_COREDUMP_ENABLE_USER_TRIGGER:
      return owner.context == 0 ? sizeof(bool) : 0;
    case CU_COREDUMP_FILE:
      return path_bytes;
    case CU_COREDUMP_PIPE:
      return owner.context == 0 ? path_bytes : 0;
    case CU_COREDUMP_GENERATION_FLAGS:
      return sizeof(uint32_t);
    default:
      return 0;
  }
}

/// Names of this process in a path, as the driver puts them in.
std::string expanded(const std::string& path) {
  std::string out;
  for (size_t i = 0; i < path.size(); ++i) {
    const char next = path[i] == '%' && i + 1 < path.size() ? path[i + 1] : '\0';
    char host[256] = {};
    if (next == 'h' && ::gethostname(host, sizeof host - 1) == 0) {
      out += host;
    } else if (next == 'p') {
      out += std::to_string(::getpid());
    } else if (next == 't') {
      out += std::to_string(std::time(nullptr));
    } else {
      out += path[i];
      continue;
    }
    ++i;
  }
  return out;
}

}  // namespace

CUresult get_core_dump(CoreDumpOwner owner, CUcoredumpSettings what, void* value, size_t* size) {
  const size_t bytes = bytes_of(owner, what);
  if (bytes == 0 || size == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (value == nullptr) {
    *size = bytes;
    return CUDA_SUCCESS;
  }
  const std::lock_guard guard(all().mutex);
  const Settings& settings = settings_of(all(), owner);
  if (bytes == path_bytes) {
    const std::string path = what == CU_COREDUMP_FILE ? settings.file : "";
    if (*size == 0) return CUDA_ERROR_INVALID_VALUE;
    const size_t count = std::min(path.size(), *size - 1);
    std::memcpy(value, path.data(), count);
    static_cast<char*>(value)[count] = '\0';
    return CUDA_SUCCESS;
  }
  if (*size != bytes) return CUDA_ERROR_INVALID_VALUE;
  if (bytes == sizeof(uint32_t)) {
    std::memcpy(value, &settings.generation, bytes);
    return CUDA_SUCCESS;
  }
  // A dump ends the program and is whole, unless the generation flags say otherwise.
  const bool on = what == CU_COREDUMP_ENABLE_ON_EXCEPTION ? settings.on_exception
                  : what == CU_COREDUMP_TRIGGER_HOST      ? true
                  : what == CU_COREDUMP_LIGHTWEIGHT       ? false
                                                          : settings.by_user;
  std::memcpy(value, &on, sizeof on);
  return CUDA_SUCCESS;
}

CUresult set_core_dump(CoreDumpOwner owner, CUcoredumpSettings what, const void* value,
                       const size_t* size) {
  const size_t bytes = bytes_of(owner, what);
  if (bytes == 0 || size == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (what == CU_COREDUMP_PIPE) return CUDA_ERROR_NOT_SUPPORTED;
  if (value == nullptr) return CUDA_SUCCESS;
  if (bytes != path_bytes && *size != bytes) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard guard(all().mutex);
  Settings& settings = settings_of(all(), owner);
  if (what == CU_COREDUMP_FILE) {
    const size_t longest = std::min(*size, path_bytes - 1);
    const auto* text = static_cast<const char*>(value);
    const std::string path(text, ::strnlen(text, longest));
    if (path.empty()) return CUDA_SUCCESS;
    settings.file = owner.context == 0 ? expanded(path) : path;
  } else if (what == CU_COREDUMP_GENERATION_FLAGS) {
    std::memcpy(&settings.generation, value, bytes);
  } else if (what == CU_COREDUMP_ENABLE_ON_EXCEPTION) {
    settings.on_exception = *static_cast<const unsigned char*>(value) != 0;
  } else if (what == CU_COREDUMP_ENABLE_USER_TRIGGER) {
    settings.by_user = *static_cast<const unsigned char*>(value) != 0;
  }
  return CUDA_SUCCESS;
}

}  // namespace outboard
