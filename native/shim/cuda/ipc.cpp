// Memory and events of other processes of the session.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/ipc.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>

#include "base/fds.hpp"
#include "base/log.hpp"
#include "base/sha256.hpp"
#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/waiting.hpp"

namespace outboard::shim {
namespace {

using wire::InterprocessHandle;
using wire::Shared;

// What this process has opened: by context and handle.
struct Opened {
  uint64_t address = 0;
  uint64_t buffer_id = 0;
  unsigned references = 0;
};

struct OpenedHandles {
  std::mutex mutex;
  std::map<std::pair<Context*, SharedName>, Opened> all;
};

OpenedHandles& opened() {
  static auto* const instance = new OpenedHandles;
  return *instance;
}

// Whether the memory is still there: it goes with its context.
bool stands(const Opened& memory) {
  Range range;
  return addresses().find(memory.address, &range) && range.buffer_id == memory.buffer_id;
}

template <typename Opaque>
bool read_handle(const Opaque& opaque, Shared kind, InterprocessHandle* handle) {
  *handle = std::bit_cast<InterprocessHandle>(opaque);
  return handle->magic == InterprocessHandle::magic_text && handle->kind == kind;
}

// Whether kernels of the context can reach what the handle names.
CUresult here(const Context* context, const InterprocessHandle& handle) {
  Device* device = nullptr;
  if (const CUresult result = device_of(handle, &device); result != CUDA_SUCCESS) return result;
  return device == context->device || reaches(*context->device, *device)
             ? CUDA_SUCCESS
             : CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
}

}  // namespace

SharedName name_of(const InterprocessHandle& handle) {
  SharedName name;
  std::copy(handle.worker.begin(), handle.worker.end(), name.begin());
  std::copy(handle.token.begin(), handle.token.end(), name.begin() + sizeof handle.worker);
  return name;
}

InterprocessHandle make_handle(Shared kind, const Device* device, const SharedName& name) {
  InterprocessHandle handle;
  handle.kind = kind;
  handle.device = device->snapshot->uuid;
  std::copy_n(name.begin(), handle.worker.size(), handle.worker.begin());
  std::copy_n(name.begin() + sizeof handle.worker, handle.token.size(), handle.token.begin());
  return handle;
}

SharedName own_name(const Device* device) {
  SharedName name{};
  from_hex(device->server->welcome().worker, std::span(name).first(sizeof(wire::WorkerId)));
  return name;
}

CUresult export_descriptor(const InterprocessHandle& handle, void* fd) {
  UniqueFd file(::memfd_create("outboard-share", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  constexpr int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  if (!file || ::write(file.get(), &handle, sizeof handle) != sizeof handle ||
      ::fcntl(file.get(), F_ADD_SEALS, seals) != 0) {
    return CUDA_ERROR_OPERATING_SYSTEM;
  }
  const int number = file.release();
  std::memcpy(fd, &number, sizeof number);
  return CUDA_SUCCESS;
}

CUresult import_descriptor(const void* fd, Shared kind, InterprocessHandle* handle) {
  const auto number = static_cast<int>(reinterpret_cast<intptr_t>(fd));
  std::array<std::byte, sizeof *handle> content{};
  struct stat status = {};
  const bool whole = ::fstat(number, &status) == 0 && S_ISREG(status.st_mode) &&
                     status.st_size == sizeof content &&
                     ::pread(number, content.data(), sizeof content, 0) == sizeof content;
  return whole && read_handle(content, kind, handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult device_of(const InterprocessHandle& handle, Device** device) {
  for (int ordinal = 0; ordinal < device_count; ++ordinal) {
    *device = devices[ordinal];
    if ((*device)->snapshot->uuid == handle.device) return CUDA_SUCCESS;
  }
  static const char said[] = "memory of an unknown device";
  say_once(said,
           "the program opens memory or an event of a device that it does not see, as of another "
           "server, which is not supported; it gets CUDA_ERROR_NOT_SUPPORTED");
  return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult export_memory(const Range& range, SharedName* name) {
  shares_memory.store(true);
  const CUresult finished = finish_uploads(range.context->server);
  if (finished != CUDA_SUCCESS) return finished;
  client::Answer<wire::command::MemoryExport> answer;
  const CUresult result =
      call(range.context, wire::command::MemoryExport{.address = range.base}, &answer);
  *name = answer.reply.token;
  return result;
}

CUresult import_memory(Context* context, const InterprocessHandle& handle, Range* range) {
  CUresult result = device_of(handle, &range->device);
  if (result != CUDA_SUCCESS) return result;
  shares_memory.store(true);
  client::Answer<wire::command::MemoryImport> answer;
  result = call(context, wire::command::MemoryImport{.token = name_of(handle)}, &answer);
  if (result != CUDA_SUCCESS) return result;
  range->base = answer.reply.address;
  range->bytes = answer.reply.bytes;
  range->context = context;
  addresses().add(*range);
  return addresses().find(range->base, range) ? CUDA_SUCCESS : CUDA_ERROR_MAP_FAILED;
}

CUresult cuIpcGetMemHandle(CUipcMemHandle* pHandle, CUdeviceptr dptr) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  Range range;
  if (pHandle == nullptr || !addresses().find(dptr, &range) || range.kind != MemoryKind::device) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  SharedName name;
  const CUresult result = export_memory(range, &name);
  if (result != CUDA_SUCCESS) return result;
  const InterprocessHandle handle = make_handle(Shared::memory, range.device, name);
  std::memcpy(pHandle, &handle, sizeof handle);
  return CUDA_SUCCESS;
}

CUresult cuIpcOpenMemHandle_v2(CUdeviceptr* pdptr, CUipcMemHandle opaque, unsigned int Flags) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (pdptr == nullptr || Flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  InterprocessHandle handle;
  if (!read_handle(opaque, Shared::memory, &handle)) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult result = here(context, handle); result != CUDA_SUCCESS) return result;
  const std::lock_guard guard(opened().mutex);
  Opened& memory = opened().all[{context, name_of(handle)}];
  if (memory.references == 0 || !stands(memory)) {
    Range range;
    range.kind = MemoryKind::imported;
    if (const CUresult result = import_memory(context, handle, &range); result != CUDA_SUCCESS) {
      opened().all.erase({context, name_of(handle)});
      return result == CUDA_ERROR_INVALID_HANDLE ? CUDA_ERROR_INVALID_VALUE : result;
    }
    memory = {range.base, range.buffer_id, 0};
  }
  ++memory.references;
  *pdptr = memory.address;
  return CUDA_SUCCESS;
}

CUresult cuIpcCloseMemHandle(CUdeviceptr dptr) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  const std::lock_guard guard(opened().mutex);
  const auto found = std::find_if(opened().all.begin(), opened().all.end(), [&](const auto& entry) {
    return entry.second.address == dptr && stands(entry.second);
  });
  if (found == opened().all.end()) return CUDA_ERROR_INVALID_VALUE;
  if (--found->second.references != 0) return CUDA_SUCCESS;
  context = found->first.first;
  opened().all.erase(found);
  addresses().remove(dptr, MemoryKind::imported, MemoryKind::imported, nullptr);
  client::Answer<wire::command::MemoryFree> answer;
  return call(context, wire::command::MemoryFree{.address = dptr}, &answer);
}

CUresult cuIpcGetEventHandle(CUipcEventHandle* pHandle, CUevent value) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (pHandle == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Event* event = find(value);
  if (event == nullptr || !event->interprocess()) return CUDA_ERROR_INVALID_HANDLE;
  client::Answer<wire::command::EventExport> answer;
  const CUresult result =
      call(event->context, wire::command::EventExport{.event = event->head.id()}, &answer);
  if (result != CUDA_SUCCESS) return result;
  const InterprocessHandle handle =
      make_handle(Shared::event, event->context->device, answer.reply.token);
  std::memcpy(pHandle, &handle, sizeof handle);
  return CUDA_SUCCESS;
}

CUresult cuIpcOpenEventHandle(CUevent* phEvent, CUipcEventHandle opaque) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (phEvent == nullptr) return CUDA_ERROR_INVALID_VALUE;
  InterprocessHandle handle;
  if (!read_handle(opaque, Shared::event, &handle)) return CUDA_ERROR_MAP_FAILED;
  if (const CUresult result = here(context, handle); result != CUDA_SUCCESS) return result;
  Event* event = events.take();
  if (event == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  event->context = context;
  event->flags = CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING;
  event->recorded.store(true);
  client::Answer<wire::command::EventImport> answer;
  const CUresult result =
      call(context, wire::command::EventImport{.event = event->head.id(), .token = name_of(handle)},
           &answer);
  if (result != CUDA_SUCCESS) {
    events.give(event);
    return result == CUDA_ERROR_INVALID_HANDLE ? CUDA_ERROR_MAP_FAILED : result;
  }
  *phEvent = shim::handle(event);
  return CUDA_SUCCESS;
}

}  // namespace outboard::shim
