// Loading the driver.
// SPDX-License-Identifier: Apache-2.0
#include "worker/driver.hpp"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string_view>

#include "base/fds.hpp"

namespace outboard::worker {
namespace {

// Walks one PT_NOTE segment; the name of a note is padded to 4 bytes, and so is its content.
bool names_outboard(const char* note, size_t bytes) {
  while (bytes >= sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr header;
    std::memcpy(&header, note, sizeof header);
    const size_t name = (size_t{header.n_namesz} + 3) & ~size_t{3};
    const size_t whole = sizeof header + name + ((size_t{header.n_descsz} + 3) & ~size_t{3});
    if (whole > bytes) return false;
    if (std::string_view(note + sizeof header, header.n_namesz) ==
        std::string_view("outboard\0", 9)) {
      return true;
    }
    note += whole;
    bytes -= whole;
  }
  return false;
}

bool has_note(const char* file, size_t bytes) {
  Elf64_Ehdr header;
  if (bytes < sizeof header) return false;
  std::memcpy(&header, file, sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return false;
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    const uint64_t at = header.e_phoff + uint64_t{i} * sizeof segment;
    if (at > bytes || bytes - at < sizeof segment) return false;
    std::memcpy(&segment, file + at, sizeof segment);
    if (segment.p_type != PT_NOTE || segment.p_offset > bytes) continue;
    if (segment.p_filesz > bytes - segment.p_offset) continue;
    if (names_outboard(file + segment.p_offset, segment.p_filesz)) return true;
  }
  return false;
}

}  // namespace

bool is_shim(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status = {};
  if (!fd || ::fstat(fd.get(), &status) != 0 || status.st_size <= 0) return false;
  const auto bytes = static_cast<size_t>(status.st_size);
  void* file = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (file == MAP_FAILED) return false;
  const bool shim = has_note(static_cast<const char*>(file), bytes);
  ::munmap(file, bytes);
  return shim;
}

std::unique_ptr<Driver> open_driver(const std::string& path, std::string* error) {
  if (path.empty() || path[0] != '/') {
    *error = "the driver must be named by an absolute path, not '" + path + "'";
    return nullptr;
  }
  if (is_shim(path)) {
    *error = path + " is Outboard's own shim, not a driver; name the real libcuda.so.1";
    return nullptr;
  }
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    *error = std::string("the driver cannot be loaded: ") + ::dlerror();
    return nullptr;
  }
  auto driver = std::make_unique<Driver>();
  std::string missing;
  if (!driver->load(library, &missing)) {
    *error = path + " is too old, driver 550 or newer is needed: it lacks " + missing;
    return nullptr;
  }
  return driver;
}

bool kills_context(CUresult result) {
  switch (result) {
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_TENSOR_MEMORY_LEAK:
      return true;
    default:
      return false;
  }
}

std::string error_name(const Driver& driver, CUresult result) {
  const char* name = nullptr;
  if (driver.cuGetErrorName(result, &name) == CUDA_SUCCESS && name) return name;
  return "error " + std::to_string(static_cast<int>(result));
}

}  // namespace outboard::worker
