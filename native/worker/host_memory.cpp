// Copies of the program's host memory that kernels reach.
// SPDX-License-Identifier: Apache-2.0
#include "worker/host_memory.hpp"

#include <sys/mman.h>

#include "base/log.hpp"
#include "wire/changes.hpp"
#include "worker/worker.hpp"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

namespace outboard::worker {
namespace {

constexpr uint64_t page_bytes = 4096;

std::byte* map_pages(void* at, size_t bytes) {
  const int place = at ? MAP_FIXED_NOREPLACE : 0;
  void* got = ::mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | place, -1, 0);
  if (got == MAP_FAILED) return nullptr;
  if (!at || got == at) return static_cast<std::byte*>(got);
  ::munmap(got, bytes);  // a kernel older than 4.17 takes the address as a hint
  return nullptr;
}

}  // namespace

HostMemory::~HostMemory() {
  for (const auto& [address, buffer] : buffers_) drop(buffer);
}

void HostMemory::drop(const Buffer& buffer) {
  driver_.cuMemHostUnregister(buffer.pages);
  ::munmap(buffer.pages, buffer.page_bytes);
  ::munmap(buffer.known, buffer.page_bytes);
  memory_.remove_mapping(buffer.range.base);
  bytes_ -= buffer.page_bytes;
}

CUresult HostMemory::map(const Context& context, Range range) {
  if (range.bytes == 0 || range.bytes > max_bytes || range.base > UINT64_MAX - range.bytes) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const uint64_t first = range.base & ~(page_bytes - 1);
  Buffer buffer;
  buffer.range = range;
  buffer.context = &context;
  buffer.page_bytes = (range.base + range.bytes - first + page_bytes - 1) & ~(page_bytes - 1);
  if (buffer.page_bytes > max_bytes - bytes_) {
    say("kernels reach more host memory of the program than the server keeps for one process "
        "(%llu MiB)",
        static_cast<unsigned long long>(max_bytes >> 20));
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  buffer.pages = map_pages(reinterpret_cast<void*>(first), buffer.page_bytes);
  if (!buffer.pages) return CUDA_ERROR_INVALID_VALUE;
  buffer.known = map_pages(nullptr, buffer.page_bytes);
  CUresult result = buffer.known ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
  if (result == CUDA_SUCCESS) {
    constexpr unsigned flags = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
    result = driver_.cuMemHostRegister_v2(buffer.pages, buffer.page_bytes, flags);
  }
  if (result == CUDA_SUCCESS) {
    CUdeviceptr device = 0;
    result = driver_.cuMemHostGetDevicePointer_v2(&device, buffer.pages, 0);
    // A device that sees host memory elsewhere is none that addresses can be shared with.
    if (result == CUDA_SUCCESS && device != first) result = CUDA_ERROR_NOT_SUPPORTED;
    if (result == CUDA_SUCCESS && !memory_.add_mapping(context.device, range)) {
      result = CUDA_ERROR_INVALID_VALUE;
    }
    if (result != CUDA_SUCCESS) driver_.cuMemHostUnregister(buffer.pages);
  }
  if (result != CUDA_SUCCESS) {
    ::munmap(buffer.pages, buffer.page_bytes);
    if (buffer.known) ::munmap(buffer.known, buffer.page_bytes);
    return result;
  }
  bytes_ += buffer.page_bytes;
  buffers_.emplace(range.base, buffer);
  return CUDA_SUCCESS;
}

CUresult HostMemory::unmap(CUdeviceptr address) {
  const auto found = buffers_.find(address);
  if (found == buffers_.end()) return CUDA_ERROR_INVALID_VALUE;
  drop(found->second);
  buffers_.erase(found);
  return CUDA_SUCCESS;
}

bool HostMemory::write(CUdeviceptr address, std::span<const std::byte> changes) {
  const auto found = buffers_.find(address);
  if (found == buffers_.end()) return false;
  return wire::apply_changes(changes, content(found->second), found->second.known);
}

CUresult HostMemory::read(CUdeviceptr address, uint64_t offset, uint64_t* next,
                          std::vector<std::byte>* changes) {
  const auto found = buffers_.find(address);
  if (found == buffers_.end() || offset % wire::change_block_bytes != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *next = wire::find_changes(content(found->second), found->second.known, offset, changes);
  return CUDA_SUCCESS;
}

void HostMemory::release_all(const Context& context) {
  std::erase_if(buffers_, [&](const auto& entry) {
    if (entry.second.context != &context) return false;
    drop(entry.second);
    return true;
  });
}

// ---- commands -----------------------------------------------------------------------------------

CUresult execute(Worker& worker, const wire::command::HostMap& command,
                 wire::command::HostMap::Reply&) {
  const Context* context = worker.current();
  if (!context) return CUDA_ERROR_INVALID_CONTEXT;
  return worker.host_memory.map(*context, {command.address, command.bytes});
}

CUresult execute(Worker& worker, const wire::command::HostUnmap& command) {
  return worker.host_memory.unmap(command.address);
}

CUresult execute(Worker& worker, const wire::command::HostWrite& command) {
  return worker.host_memory.write(command.address, command.changes) ? CUDA_SUCCESS
                                                                    : CUDA_ERROR_INVALID_VALUE;
}

CUresult execute(Worker& worker, const wire::command::HostRead& command,
                 wire::command::HostRead::Reply& reply) {
  // The reply's span must outlive this call.
  static thread_local std::vector<std::byte> changes;
  changes.clear();
  const CUresult result =
      worker.host_memory.read(command.address, command.offset, &reply.next, &changes);
  reply.changes = changes;
  return result;
}

}  // namespace outboard::worker
