// Host memory that kernels reach: shared with the program, or a copy of its own.
// SPDX-License-Identifier: Apache-2.0
#include "worker/host_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <memory>
#include <utility>

#include "base/log.hpp"
#include "transport/local.hpp"
#include "wire/changes.hpp"
#include "wire/frame.hpp"
#include "worker/worker.hpp"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

namespace outboard::worker {
namespace {

constexpr uint64_t page_bytes = 4096;

std::byte* map_pages(void* at, size_t bytes, const UniqueFd& file = UniqueFd()) {
  const int place = at ? MAP_FIXED_NOREPLACE : 0;
  const int kind = file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  void* got = ::mmap(at, bytes, PROT_READ | PROT_WRITE, kind | place, file.get(), 0);
  if (got == MAP_FAILED) return nullptr;
  if (!at || got == at) return static_cast<std::byte*>(got);
  ::munmap(got, bytes);  // a kernel older than 4.17 takes the address as a hint
  return nullptr;
}

// Memory that is all there and stays there, whatever the client does: the processor may touch it.
bool is_lasting(const UniqueFd& file, uint64_t bytes) {
  constexpr int needed = F_SEAL_SHRINK;
  struct stat status = {};
  const int seals = ::fcntl(file.get(), F_GET_SEALS);
  return seals >= 0 && (seals & needed) == needed && ::fstat(file.get(), &status) == 0 &&
         static_cast<uint64_t>(status.st_size) == bytes &&
         static_cast<uint64_t>(status.st_blocks) * 512 >= bytes;
}

}  // namespace

HostMemory::~HostMemory() {
  for (const auto& [address, buffer] : buffers_) drop(buffer);
}

void HostMemory::drop(const Buffer& buffer) {
  if (!buffer.module) {
    if (buffer.pinned) driver_.cuMemHostUnregister(buffer.pages);
    ::munmap(buffer.pages, buffer.page_bytes);
    memory_.remove_mapping(buffer.range.base);
  }
  if (!buffer.known) return;
  ::munmap(buffer.known, buffer.page_bytes);
  bytes_ -= buffer.page_bytes;
}

CUresult HostMemory::pin(Range range) const {
  constexpr unsigned flags = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
  auto* const pages = reinterpret_cast<void*>(range.base);
  CUresult result = driver_.cuMemHostRegister_v2(pages, range.bytes, flags);
  if (result != CUDA_SUCCESS) return result;
  CUdeviceptr device = 0;
  result = driver_.cuMemHostGetDevicePointer_v2(&device, pages, 0);
  // A device that sees host memory elsewhere is none that addresses can be shared with.
  if (result == CUDA_SUCCESS && device != range.base) result = CUDA_ERROR_NOT_SUPPORTED;
  if (result != CUDA_SUCCESS) driver_.cuMemHostUnregister(pages);
  return result;
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
  const Allocation* there = memory_.find(range.base, range.bytes);
  buffer.module = there && there->managed && !buffers_.contains(range.base);
  buffer.pages = buffer.module ? reinterpret_cast<std::byte*>(first)
                               : map_pages(reinterpret_cast<void*>(first), buffer.page_bytes);
  if (!buffer.pages) return CUDA_ERROR_INVALID_VALUE;
  buffer.known = map_pages(nullptr, buffer.page_bytes);
  if (buffer.module) {
    if (!buffer.known) return CUDA_ERROR_OUT_OF_MEMORY;
    bytes_ += buffer.page_bytes;
    buffer.pinned = true;
    buffer.context = there->context;
    buffers_.emplace(range.base, buffer);
    return CUDA_SUCCESS;
  }
  CUresult result = buffer.known ? pin({first, buffer.page_bytes}) : CUDA_ERROR_OUT_OF_MEMORY;
  if (result == CUDA_SUCCESS && !memory_.add_host(context.device, range)) {
    driver_.cuMemHostUnregister(buffer.pages);
    result = CUDA_ERROR_INVALID_VALUE;
  }
  if (result != CUDA_SUCCESS) {
    ::munmap(buffer.pages, buffer.page_bytes);
    if (buffer.known) ::munmap(buffer.known, buffer.page_bytes);
    return result;
  }
  bytes_ += buffer.page_bytes;
  buffer.pinned = true;
  buffers_.emplace(range.base, buffer);
  return CUDA_SUCCESS;
}

void HostMemory::connect(UniqueFd socket) {
  if (socket_) return;  // a client has one
  socket_ = std::move(socket);
  ::send(socket_.get(), wire::memory_ready, sizeof wire::memory_ready, MSG_NOSIGNAL | MSG_DONTWAIT);
}

bool HostMemory::take_descriptors() {
  for (;;) {
    uint64_t address = 0;
    UniqueFd file;
    switch (socket_ ? transport::receive_descriptor(socket_.get(), &address, &file)
                    : transport::Status::again) {
      case transport::Status::ok:
        if (descriptors_.size() == most_descriptors) return false;
        descriptors_.insert_or_assign(address, std::move(file));
        continue;
      case transport::Status::again:
        return true;
      case transport::Status::closed:
        socket_.reset();
        return true;
      default:
        return false;
    }
  }
}

CUresult HostMemory::map_shared(const Context& context, Range range, bool* allowed) {
  *allowed = take_descriptors();
  if (!*allowed) return CUDA_ERROR_INVALID_VALUE;
  auto found = descriptors_.extract(range.base);
  if (found.empty()) return CUDA_ERROR_NOT_SUPPORTED;
  const UniqueFd file = std::move(found.mapped());
  if (range.bytes == 0 || range.base % page_bytes != 0 || range.bytes % page_bytes != 0 ||
      range.base > UINT64_MAX - range.bytes || !is_lasting(file, range.bytes)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (!memory_.add_host(context.device, range)) return CUDA_ERROR_INVALID_VALUE;
  std::byte* pages = map_pages(reinterpret_cast<void*>(range.base), range.bytes, file);
  if (!pages) {
    memory_.remove_mapping(range.base);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  buffers_.emplace(range.base, Buffer{range, &context, pages, range.bytes});
  return CUDA_SUCCESS;
}

void HostMemory::note_pinned(CUdeviceptr address, CUresult result) {
  const auto found = buffers_.find(address);
  found->second.pinned = result == CUDA_SUCCESS;
  if (result == CUDA_SUCCESS) return;
  drop(found->second);
  buffers_.erase(found);
}

const Context* HostMemory::home(CUdeviceptr address) const {
  const auto found = buffers_.find(address);
  return found == buffers_.end() ? nullptr : found->second.context;
}

CUresult HostMemory::unmap(CUdeviceptr address) {
  const auto found = buffers_.find(address);
  if (found == buffers_.end() || !found->second.pinned) return CUDA_ERROR_INVALID_VALUE;
  drop(found->second);
  buffers_.erase(found);
  return CUDA_SUCCESS;
}

bool HostMemory::write(CUdeviceptr address, std::span<const std::byte> changes) {
  const auto found = buffers_.find(address);
  if (found == buffers_.end() || !found->second.known) return false;
  return wire::apply_changes(changes, content(found->second), found->second.known);
}

CUresult HostMemory::read(CUdeviceptr address, uint64_t offset, uint64_t* next,
                          std::vector<std::byte>* changes) {
  const auto found = buffers_.find(address);
  if (found == buffers_.end() || !found->second.known || offset % wire::change_block_bytes != 0) {
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

void HostMemory::release_lost() {
  std::erase_if(buffers_, [&](const auto& entry) {
    const Buffer& buffer = entry.second;
    if (!buffer.module || memory_.find(buffer.range.base, buffer.range.bytes)) return false;
    drop(buffer);
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

// Pinning takes the driver some milliseconds for each 10 MiB, which is too long for the loop.
void execute(Worker& worker, const Request& request, const wire::command::HostShare& command) {
  constexpr uint64_t most_pinned_at_once = 1 << 20;
  HostMemory& memory = worker.host_memory;
  const Range range{command.address, command.bytes};
  if (!worker.current()) return worker.answer(request, CUDA_ERROR_INVALID_CONTEXT);
  const auto context = worker.tables.contexts.share(worker.current()->id);
  bool allowed = false;
  const CUresult mapped = memory.map_shared(*context, range, &allowed);
  if (!allowed) return worker.broken("something else than memory was handed over");
  if (mapped != CUDA_SUCCESS) return worker.answer(request, mapped);
  const auto finish = [&worker, request, base = range.base](CUresult pinned) {
    worker.host_memory.note_pinned(base, pinned);
    worker.answer(request, pinned);
  };
  if (range.bytes <= most_pinned_at_once) return finish(memory.pin(range));
  ++context->loading;  // it must not end meanwhile
  const auto pinned = std::make_shared<CUresult>(CUDA_ERROR_UNKNOWN);
  worker.side.start(
      [&worker, context, range, pinned] {
        worker.driver().cuCtxSetCurrent(context->handle);
        *pinned = worker.host_memory.pin(range);
      },
      [context, finish, pinned] {
        --context->loading;
        finish(*pinned);
      });
}

// Once what was issued before is done, so that the driver need not wait for it in this thread.
void execute(Worker& worker, const Request& request, const wire::command::HostUnmap& command) {
  const Context* home = worker.host_memory.home(command.address);
  if (!home) return worker.answer(request, CUDA_ERROR_INVALID_VALUE);
  worker.completion.when_done(*worker.tables.contexts.share(home->id),
                              [&worker, request, address = command.address](CUresult) {
                                worker.answer(request, worker.host_memory.unmap(address));
                              });
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
