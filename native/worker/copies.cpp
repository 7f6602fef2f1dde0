// Copies and fills.
// SPDX-License-Identifier: Apache-2.0
#include "worker/copies.hpp"

#include <cstring>

#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

bool open_download(Worker& worker, Stream& stream) {
  if (stream.download) return true;
  auto buffer = stream.context->staging.take(DownloadRing::slots * wire::bulk_piece_bytes);
  if (!buffer) return false;
  stream.download = std::make_shared<DownloadRing>();
  stream.download->buffer = std::move(buffer);
  stream.download->words = stream.words;
  worker.bulk.open(stream.download);
  return true;
}

CUresult may_copy_to_host(Worker& worker, const Stream& stream, CUdeviceptr source,
                          uint64_t bytes) {
  if (stream.capture) return CUDA_ERROR_NOT_SUPPORTED;
  return worker.memory.contains(source, bytes) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

std::unique_ptr<BulkCopy> bulk_copy(bool to_device, uint64_t id, CUdeviceptr address,
                                    uint64_t bytes) {
  auto copy = std::make_unique<BulkCopy>();
  copy->to_device = to_device;
  copy->id = id;
  copy->address = address;
  copy->bytes = bytes;
  return copy;
}

// Whether `height` rows of `width` bytes, `pitch` bytes apart, lie in one allocation.
bool contains_rows(const Memory& memory, CUdeviceptr address, uint64_t pitch, uint64_t width,
                   uint64_t height) {
  uint64_t bytes = 0;
  if (height == 0 || width == 0) return true;
  if (height > 1 && width > pitch) return false;
  if (__builtin_mul_overflow(pitch, height - 1, &bytes)) return false;
  if (__builtin_add_overflow(bytes, width, &bytes)) return false;
  return memory.contains(address, bytes);
}

}  // namespace

std::byte* stage(Worker& worker, Stream& stream, size_t bytes) {
  if (!stream.staging) {
    auto buffer = stream.context->staging.take(StagingRing::ring_bytes);
    if (!buffer) return nullptr;
    stream.staging = std::make_unique<StagingRing>(std::move(buffer));
  }
  if (!stream.staging->room(bytes)) return nullptr;
  return stream.staging->allocate(bytes, stream.issued);
}

CUcontext context_of(const Worker& worker, const Allocation& allocation) {
  // A stream may have it from a pool of another device.
  const Context* owner = allocation.context;
  if (owner && owner->device == allocation.device) return owner->handle;
  CUcontext found = nullptr;
  worker.tables.contexts.each([&](const Context& context) {
    if (context.device == allocation.device) found = context.handle;
  });
  return found;
}

bool announce_upload(Worker& worker, Stream& stream,
                     const wire::command::CopyToDeviceBulk& command) {
  if (command.bytes == 0) return true;
  if (!worker.memory.contains(command.destination, command.bytes) || stream.capture) {
    return worker.bulk.announce_dropped(command.stream, command.copy, command.bytes);
  }
  if (!stream.upload) {
    worker.make_current(*stream.context);
    auto buffer = stream.context->staging.take(UploadRing::ring_bytes);
    if (!buffer) return worker.bulk.announce_dropped(command.stream, command.copy, command.bytes);
    stream.upload = std::make_shared<UploadRing>();
    stream.upload->stream = stream.id;
    stream.upload->buffer = std::move(buffer);
    stream.upload->words = stream.words;
    worker.bulk.open(stream.upload);
  }
  return worker.bulk.announce(stream.upload, command.copy, command.bytes);
}

CUresult execute(Worker& worker, const wire::command::CopyToDevice& command) {
  Stream& stream = worker.issuing();
  const std::span<const std::byte> content = command.content;
  if (content.size() > wire::max_inline_bytes) return CUDA_ERROR_INVALID_VALUE;
  if (stream.capture) return CUDA_ERROR_NOT_SUPPORTED;
  if (!worker.memory.contains(command.destination, content.size())) return CUDA_ERROR_INVALID_VALUE;
  if (content.empty()) return CUDA_SUCCESS;
  std::byte* staged = stage(worker, stream, content.size());
  if (!staged) return CUDA_ERROR_OUT_OF_MEMORY;
  std::memcpy(staged, content.data(), content.size());
  return worker.driver().cuMemcpyHtoDAsync_v2(command.destination, staged, content.size(),
                                              stream.handle);
}

CUresult execute(Worker& worker, const wire::command::CopyToDeviceBulk& command) {
  Stream& stream = worker.issuing();
  if (command.bytes == 0) return CUDA_SUCCESS;
  auto copy = bulk_copy(true, command.copy, command.destination, command.bytes);
  if (stream.upload) copy->place = worker.bulk.place(*stream.upload, command.copy);
  if (!stream.upload || copy->place.id != command.copy || copy->place.begin == copy->place.end) {
    return stream.capture ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;  // when it came
  }
  // The memory may have been freed while the command waited for its turn.
  if (stream.capture || !worker.memory.contains(command.destination, command.bytes)) {
    worker.bulk.discard(*stream.upload, command.copy);
    return stream.capture ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
  }
  return worker.begin_bulk(stream, std::move(copy));
}

namespace {

CUresult start_copy_to_host(Worker& worker, const wire::command::CopyToHost& command) {
  const std::shared_ptr<Stream> stream = worker.issuing().shared_from_this();
  if (const CUresult result = may_copy_to_host(worker, *stream, command.source, command.bytes);
      result != CUDA_SUCCESS) {
    return result;
  }
  if (command.bytes > wire::max_inline_bytes) {
    if (!open_download(worker, *stream)) return CUDA_ERROR_OUT_OF_MEMORY;
    return worker.begin_bulk(*stream,
                             bulk_copy(false, command.copy, command.source, command.bytes));
  }
  if (command.bytes == 0) return CUDA_SUCCESS;
  std::byte* staged = stage(worker, *stream, command.bytes);
  if (!staged) return CUDA_ERROR_OUT_OF_MEMORY;
  const CUresult result =
      worker.driver().cuMemcpyDtoHAsync_v2(staged, command.source, command.bytes, stream->handle);
  if (result != CUDA_SUCCESS) return result;
  const uint64_t copy = command.copy;
  const uint64_t bytes = command.bytes;
  worker.completion.when_done(*stream, [&worker, staged, copy, bytes](CUresult outcome) {
    if (outcome != CUDA_SUCCESS) return;
    worker.outbox.message(wire::MessageKind::copied, copy, CUDA_SUCCESS, {staged, bytes});
  });
  return CUDA_SUCCESS;
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::CopyToHost& command) {
  const CUresult result = start_copy_to_host(worker, command);
  if (result != CUDA_SUCCESS) worker.no_bytes(command.copy, result);
  return result;
}

void execute(Worker& worker, const Request& request, const wire::command::CopyToHostSync& command) {
  const std::shared_ptr<Stream> stream = worker.issuing().shared_from_this();
  if (const CUresult result = may_copy_to_host(worker, *stream, command.source, command.bytes);
      result != CUDA_SUCCESS) {
    return worker.answer(request, result);
  }
  const auto reply = [&worker, request, stream](CUresult result,
                                                std::span<const std::byte> content) {
    if (result == CUDA_SUCCESS) worker.send_text(*stream->context, stream.get());
    worker.reply(request, result, wire::command::CopyToHostSync::Reply{.content = content});
  };
  if (command.bytes > wire::max_inline_bytes) {
    if (!open_download(worker, *stream)) return worker.answer(request, CUDA_ERROR_OUT_OF_MEMORY);
    auto copy = bulk_copy(false, command.copy, command.source, command.bytes);
    copy->finished = [&worker, stream, reply](CUresult result) {
      if (result != CUDA_SUCCESS) return reply(result, {});
      worker.completion.when_done(*stream, [reply](CUresult outcome) { reply(outcome, {}); });
    };
    worker.begin_bulk(*stream, std::move(copy));
    return;
  }
  if (command.bytes == 0) {
    worker.completion.when_done(*stream, [reply](CUresult outcome) { reply(outcome, {}); });
    return;
  }
  std::byte* staged = stage(worker, *stream, command.bytes);
  if (!staged) return worker.answer(request, CUDA_ERROR_OUT_OF_MEMORY);
  const CUresult result =
      worker.driver().cuMemcpyDtoHAsync_v2(staged, command.source, command.bytes, stream->handle);
  if (result != CUDA_SUCCESS) return worker.answer(request, result);
  const uint64_t bytes = command.bytes;
  worker.completion.when_done(*stream, [reply, staged, bytes](CUresult outcome) {
    reply(outcome, outcome == CUDA_SUCCESS ? std::span<const std::byte>(staged, bytes)
                                           : std::span<const std::byte>());
  });
}

namespace {

// Host memory that is shared with the client: the driver moves it as it would move the client's.
CUresult copy_host(const Driver& driver, const wire::command::CopyOnDevice& command,
                   const Allocation& to, const Allocation& from, CUstream stream) {
  if (to.host && from.host) {
    return driver.cuMemcpyAsync(command.destination, command.source, command.bytes, stream);
  }
  if (to.host) {
    return driver.cuMemcpyDtoHAsync_v2(reinterpret_cast<void*>(command.destination), command.source,
                                       command.bytes, stream);
  }
  return driver.cuMemcpyHtoDAsync_v2(
      command.destination, reinterpret_cast<const void*>(command.source), command.bytes, stream);
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::CopyOnDevice& command) {
  const Allocation* to = worker.memory.find(command.destination, command.bytes);
  const Allocation* from = worker.memory.find(command.source, command.bytes);
  if (!to || !from) return CUDA_ERROR_INVALID_VALUE;
  const CUstream stream = worker.issuing().handle;
  if (to->host || from->host) return copy_host(worker.driver(), command, *to, *from, stream);
  if (to->device == from->device) {
    return worker.driver().cuMemcpyDtoDAsync_v2(command.destination, command.source, command.bytes,
                                                stream);
  }
  const CUcontext to_context = context_of(worker, *to);
  const CUcontext from_context = context_of(worker, *from);
  if (!to_context || !from_context) return CUDA_ERROR_INVALID_CONTEXT;
  return worker.driver().cuMemcpyPeerAsync(command.destination, to_context, command.source,
                                           from_context, command.bytes, stream);
}

CUresult execute(Worker& worker, const wire::command::Fill& command) {
  const uint32_t element = command.element_bytes;
  uint64_t row = 0;
  if ((element != 1 && element != 2 && element != 4) ||
      __builtin_mul_overflow(command.width, uint64_t{element}, &row)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const bool flat = command.pitch == 0;
  if (flat && command.height > 1) return CUDA_ERROR_INVALID_VALUE;
  if (!contains_rows(worker.memory, command.destination, command.pitch, row, command.height)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const Driver& driver = worker.driver();
  const CUstream stream = worker.issuing().handle;
  const auto byte = static_cast<unsigned char>(command.value);
  const auto half = static_cast<unsigned short>(command.value);
  const CUdeviceptr to = command.destination;
  switch (element) {
    case 1:
      return flat ? driver.cuMemsetD8Async(to, byte, command.width, stream)
                  : driver.cuMemsetD2D8Async(to, command.pitch, byte, command.width, command.height,
                                             stream);
    case 2:
      return flat ? driver.cuMemsetD16Async(to, half, command.width, stream)
                  : driver.cuMemsetD2D16Async(to, command.pitch, half, command.width,
                                              command.height, stream);
    default:
      return flat ? driver.cuMemsetD32Async(to, command.value, command.width, stream)
                  : driver.cuMemsetD2D32Async(to, command.pitch, command.value, command.width,
                                              command.height, stream);
  }
}

}  // namespace outboard::worker
