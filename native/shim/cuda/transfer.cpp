// Copies by size and by what their ends are.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/transfer.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "base/log.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/graph_copies.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/waiting.hpp"

namespace outboard::shim {
namespace {

using client::Result;
using client::Waiter;

// Of both ends in host memory that is not shared nothing is the server's.
CUresult refuse_captured() {
  static const char said[] = "captured copy";
  say_once(said,
           "the program captures a copy within host memory into a graph, which is not supported; "
           "it gets CUDA_ERROR_NOT_SUPPORTED");
  return CUDA_ERROR_NOT_SUPPORTED;
}

struct HostPlace {
  void* to = nullptr;
  size_t bytes = 0;
};

// A reply with the bytes goes straight from the receive buffer to where the program wants them; a
// large copy's reply is empty, its bytes come on the bulk connection.
bool deliver_content(Waiter* waiter, std::span<const std::byte> payload) {
  if (waiter->result != client::result::success) return true;
  const auto* place = static_cast<const HostPlace*>(waiter->context);
  wire::Reader reader(payload);
  wire::command::CopyToHostSync::Reply reply;
  if (!reply.decode(reader)) return false;
  if (place->bytes > wire::max_inline_bytes) return reply.content.empty();
  if (reply.content.size() != place->bytes) return false;
  std::memcpy(place->to, reply.content.data(), place->bytes);
  return true;
}

// The stream got to the copy: what was issued before it is complete once its bytes are here.
CUresult settle(Stream* stream, uint64_t count) {
  client::Copies& copies = stream->context->server->copies();
  copies.report(&stream->progress, count);
  return copies.wait(&stream->progress, count) ? CUDA_SUCCESS : CUDA_ERROR_DEVICE_UNAVAILABLE;
}

CUresult read_now(Stream* stream, void* to, uint64_t from, size_t bytes) {
  Context* context = stream->context;
  client::Connection& connection = context->server->connection();
  HostPlace place{to, bytes};
  Waiter waiter;
  waiter.context = &place;
  waiter.deliver = deliver_content;
  wire::command::CopyToHostSync command{
      .stream = stream->head.id(), .source = from, .bytes = bytes};
  uint64_t count = 0;
  if (bytes <= wire::max_inline_bytes) {
    connection.call_with(command, context->head.index, &waiter, &stream->progress, &count);
    return waiter.result == client::result::success ? settle(stream, count)
                                                    : to_cuda(waiter.result);
  }
  if (const Result ready = context->server->bulk().ready(); ready != client::result::success) {
    return to_cuda(ready);
  }
  uint64_t copy = 0;
  client::Copies& copies = context->server->copies();
  const Result started =
      copies.issue(&stream->progress, to, bytes, &copy, [&](uint64_t id, uint64_t* issued) {
        command.copy = id;
        const Result result =
            connection.start_call(command, context->head.index, &waiter, &stream->progress, issued);
        count = *issued;
        return result;
      });
  if (started != client::result::success) return to_cuda(started);
  connection.finish_call(&waiter);
  if (waiter.result == client::result::success) return settle(stream, count);
  copies.cancel(copy);
  return to_cuda(waiter.result);
}

CUresult read_later(Stream* stream, void* to, uint64_t from, size_t bytes) {
  client::Server* server = stream->context->server;
  if (bytes > wire::max_inline_bytes) {
    if (const Result ready = server->bulk().ready(); ready != client::result::success) {
      return to_cuda(ready);
    }
  }
  uint64_t copy = 0;
  return to_cuda(server->copies().issue(
      &stream->progress, to, bytes, &copy, [&](uint64_t id, uint64_t* count) -> Result {
        return send(stream,
                    wire::command::CopyToHost{
                        .stream = stream->head.id(), .copy = id, .source = from, .bytes = bytes},
                    count);
      }));
}

// Returns when the bytes have left, or, of pinned memory that is read later, at once.
CUresult upload(Stream* stream, uint64_t to, const void* from, size_t bytes, When when,
                uint64_t* count) {
  note_stored(stream->context->server, to, from, bytes);
  if (bytes <= wire::max_inline_bytes) {
    const std::span content(static_cast<const std::byte*>(from), bytes);
    return send(stream,
                wire::command::CopyToDevice{
                    .stream = stream->head.id(), .destination = to, .content = content},
                count);
  }
  const bool wait = when == When::done || !addresses().is_pinned(from, bytes);
  return to_cuda(stream->context->server->bulk().send(
      stream->head.id(), from, bytes, wait, [&](uint64_t copy) -> Result {
        return send(
            stream,
            wire::command::CopyToDeviceBulk{
                .stream = stream->head.id(), .copy = copy, .destination = to, .bytes = bytes},
            count);
      }));
}

// Whether the server has the memory, for a command of this stream.
CUresult find_at_server(Stream* stream, uint64_t address, size_t bytes, bool* there) {
  if (is_captured(stream)) return find_for_graph(stream->context, address, bytes, there);
  *there = addresses().is_shared(stream->context->server, address, bytes);
  return CUDA_SUCCESS;
}

// Between memory of the server's, some of which is the program's, too: in the stream's order, by
// the driver itself.
CUresult copy_shared(Stream* stream, uint64_t to, uint64_t from, size_t bytes, When when) {
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  const CUresult result = send(
      stream, wire::command::CopyOnDevice{
                  .stream = stream->head.id(), .destination = to, .source = from, .bytes = bytes});
  if (result != CUDA_SUCCESS || when == When::queued || is_captured(stream)) return result;
  return wait_all(stream);
}

// Through the program's memory, piece by piece; done when the call returns, as far as what follows
// in `stream` can see.
CUresult copy_between_servers(Stream* stream, uint64_t to, const Range& target, uint64_t from,
                              const Range& source, size_t bytes) {
  constexpr size_t most_bytes = 8 << 20;
  Stream* reading = stream;
  Stream* writing = stream;
  bool read_away = false, write_away = false;
  CUresult result = stream_for(source, &reading, &read_away);
  if (result == CUDA_SUCCESS) result = stream_for(target, &writing, &write_away);
  if (result == CUDA_SUCCESS) result = note_work(reading);
  if (result == CUDA_SUCCESS) result = note_work(writing);
  const size_t piece_bytes = std::min(bytes, most_bytes);
  const std::unique_ptr<std::byte[]> piece(new (std::nothrow) std::byte[piece_bytes]);
  if (piece == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  for (size_t at = 0; at < bytes && result == CUDA_SUCCESS; at += piece_bytes) {
    const size_t now = std::min(piece_bytes, bytes - at);
    uint64_t count = 0;
    result = read_now(reading, piece.get(), from + at, now);
    if (result == CUDA_SUCCESS) {
      result = upload(writing, to + at, piece.get(), now, When::done, &count);
    }
  }
  return result == CUDA_SUCCESS && write_away ? wait_all(writing) : result;
}

}  // namespace

CUresult send_bytes(Stream* stream, uint64_t to, const void* from, size_t bytes) {
  uint64_t count = 0;
  return upload(stream, to, from, bytes, When::done, &count);
}
CUresult fetch_bytes_later(Stream* stream, void* to, uint64_t from, size_t bytes) {
  return read_later(stream, to, from, bytes);
}
CUresult fetch_bytes_now(Stream* stream, void* to, uint64_t from, size_t bytes) {
  return read_now(stream, to, from, bytes);
}

CUresult copy_to_device(Stream* stream, uint64_t to, const void* from, size_t bytes, When when) {
  if (bytes == 0) return CUDA_SUCCESS;
  Range range;
  if (from == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!addresses().is_device(to, bytes, &range)) {
    return find_host(&to) ? copy_any(stream, to, reinterpret_cast<uint64_t>(from), bytes, when)
                          : CUDA_ERROR_INVALID_VALUE;
  }
  bool away = false;
  if (const CUresult result = stream_for(range, &stream, &away); result != CUDA_SUCCESS) {
    return result;
  }
  if (away) when = When::done;
  const auto source = reinterpret_cast<uint64_t>(from);
  // What few bytes hold now they hold in an idle stream's turn: they go along, and nobody waits.
  const bool goes_along = when == When::done && bytes <= wire::max_inline_bytes && !away &&
                          !is_captured(stream) && may_return_early(stream);
  bool there = false;
  if (!goes_along) {
    const CUresult result = find_at_server(stream, source, bytes, &there);
    if (result != CUDA_SUCCESS) return result;
  }
  if (there) return copy_shared(stream, to, source, bytes, when);
  if (is_captured(stream)) return capture_copy(stream, true, to, from, bytes);
  if (const CUresult result = settle_views(from, bytes); result != CUDA_SUCCESS) return result;
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  const bool early = !away && (when == When::queued || may_return_early(stream));
  uint64_t count = 0;
  if (const CUresult result = upload(stream, to, from, bytes, when, &count);
      result != CUDA_SUCCESS || when == When::queued) {
    return result;
  }
  if (!early) return wait_all(stream);
  note_upload(stream, count);
  return CUDA_SUCCESS;
}

CUresult copy_to_host(Stream* stream, void* to, uint64_t from, size_t bytes, When when) {
  if (bytes == 0) return CUDA_SUCCESS;
  Range range;
  if (to == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!addresses().is_device(from, bytes, &range)) {
    return find_host(&from) ? copy_any(stream, reinterpret_cast<uint64_t>(to), from, bytes, when)
                            : CUDA_ERROR_INVALID_VALUE;
  }
  bool away = false;
  if (const CUresult result = stream_for(range, &stream, &away); result != CUDA_SUCCESS) {
    return result;
  }
  if (away) when = When::done;
  bool there = false;
  const auto target = reinterpret_cast<uint64_t>(to);
  if (const CUresult result = find_at_server(stream, target, bytes, &there);
      result != CUDA_SUCCESS) {
    return result;
  }
  if (there) {
    const CUresult result = copy_shared(stream, target, from, bytes, when);
    return result == CUDA_SUCCESS && when == When::done ? fetch_views() : result;
  }
  if (is_captured(stream)) return capture_copy(stream, false, from, to, bytes);
  if (const CUresult result = settle_views(to, bytes); result != CUDA_SUCCESS) return result;
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  if (when == When::queued && addresses().is_pinned(to, bytes)) {
    return read_later(stream, to, from, bytes);
  }
  const CUresult result = read_now(stream, to, from, bytes);
  return result == CUDA_SUCCESS ? fetch_views() : result;
}

CUresult copy_on_device(Stream* stream, uint64_t to, uint64_t from, size_t bytes) {
  if (bytes == 0) return CUDA_SUCCESS;
  Range target, source;
  if (!addresses().is_device(to, bytes, &target) || !addresses().is_device(from, bytes, &source)) {
    // Memory of the program's that devices reach counts as theirs.
    const bool known = (find_host(&to) || addresses().is_device(to, bytes, &target)) &&
                       (find_host(&from) || addresses().is_device(from, bytes, &source));
    return known ? copy_any(stream, to, from, bytes, When::queued) : CUDA_ERROR_INVALID_VALUE;
  }
  if (target.device->server != source.device->server) {
    return copy_between_servers(stream, to, target, from, source, bytes);
  }
  bool away = false;
  const bool takes_part =
      stream->context->device == target.device || stream->context->device == source.device;
  CUresult result =
      stream_for(target, &stream, &away, takes_part ? Beyond::server : Beyond::device);
  if (result == CUDA_SUCCESS) result = note_work(stream);
  if (result != CUDA_SUCCESS) return result;
  result = send(
      stream, wire::command::CopyOnDevice{
                  .stream = stream->head.id(), .destination = to, .source = from, .bytes = bytes});
  return result == CUDA_SUCCESS && away ? wait_all(stream) : result;
}

CUresult copy_any(Stream* stream, uint64_t to, uint64_t from, size_t bytes, When when) {
  if (bytes == 0) return CUDA_SUCCESS;
  Range range;
  find_host(&to);
  find_host(&from);
  const bool to_gpu = addresses().find(to, &range) && range.on_device();
  const bool from_gpu = addresses().find(from, &range) && range.on_device();
  auto* host_to = reinterpret_cast<void*>(to);
  const auto* host_from = reinterpret_cast<const void*>(from);
  if (to_gpu && from_gpu) return copy_on_device(stream, to, from, bytes);
  if (to_gpu) return copy_to_device(stream, to, host_from, bytes, when);
  if (from_gpu) return copy_to_host(stream, host_to, from, bytes, when);
  if (to == 0 || from == 0) return CUDA_ERROR_INVALID_VALUE;
  // Host to host keeps the stream's order: what is queued before it is done first.
  const bool waits = !is_captured(stream) && !is_first(stream);
  if (is_captured(stream) || (when == When::queued && waits)) {
    bool to_there = false, from_there = false;
    CUresult result = find_at_server(stream, to, bytes, &to_there);
    if (result == CUDA_SUCCESS) result = find_at_server(stream, from, bytes, &from_there);
    if (result != CUDA_SUCCESS) return result;
    if (to_there && from_there) return copy_shared(stream, to, from, bytes, when);
  }
  if (is_captured(stream)) return refuse_captured();
  if (waits) {
    if (const CUresult result = wait_all(stream); result != CUDA_SUCCESS) return result;
  }
  if (const CUresult result = settle_views(host_from, bytes); result != CUDA_SUCCESS) return result;
  if (const CUresult result = settle_views(host_to, bytes); result != CUDA_SUCCESS) return result;
  std::memmove(host_to, host_from, bytes);
  return CUDA_SUCCESS;
}

}  // namespace outboard::shim
