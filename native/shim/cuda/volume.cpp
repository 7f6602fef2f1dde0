// Copies in up to three dimensions: on the server as one command, to and from it without gaps.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/volume.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>

#include "shim/cuda/addresses.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/graph_copies.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/waiting.hpp"
#include "wire/volume.hpp"

namespace outboard::shim {
namespace {

// What crosses the network at once beyond the inline size; device memory holds it on its way.
constexpr size_t piece_bytes = 16 << 20;

const std::byte* host_bytes(uint64_t address) {
  return reinterpret_cast<const std::byte*>(address);
}

wire::VolumeEnd to_wire(const VolumeEnd& end) {
  wire::VolumeEnd out;
  if (end.array == nullptr) {
    out.address = end.address;
    out.pitch = end.pitch;
    out.rows = end.rows;
    return out;
  }
  out.array = end.array->head.id();
  out.x_bytes = end.x_bytes;
  out.y = end.y;
  out.z = end.z;
  return out;
}

// Where the part of an end begins that is `row` rows and `slice` slices further on.
VolumeEnd part_of(VolumeEnd end, size_t row, size_t slice) {
  end.address += (slice * end.rows + row) * end.pitch;
  end.y += row;
  end.z += slice;
  return end;
}

size_t extent(const VolumeEnd& end, const VolumeShape& shape) {
  return ((shape.depth - 1) * end.rows + shape.height - 1) * end.pitch + shape.width_bytes;
}

bool is_linear(const VolumeEnd& end, const VolumeShape& shape) {
  if (end.array != nullptr) return false;
  if (shape.height == 1 && shape.depth == 1) return true;
  return end.pitch == shape.width_bytes && (shape.depth == 1 || end.rows == shape.height);
}

bool lies_on_device(const VolumeEnd& end, const VolumeShape& shape) {
  Range range;
  return end.array != nullptr || addresses().is_device(end.address, extent(end, shape), &range);
}

// Whose memory an end on a server is; it is known to be some device's.
Range owner_of(const VolumeEnd& end) {
  Range range;
  if (end.array != nullptr) {
    range.context = end.array->context;
    range.device = range.context->device;
  } else {
    addresses().find(end.address, &range);
  }
  return range;
}

CUresult copy_on_server(Stream* stream, const VolumeEnd& to, const VolumeEnd& from,
                        const VolumeShape& shape) {
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  return send_volume(stream, to, from, shape);
}

// Between memory of the program's and bytes without gaps.
void gather(std::byte* dense, const VolumeEnd& from, const VolumeShape& shape) {
  for (size_t slice = 0; slice < shape.depth; ++slice) {
    for (size_t row = 0; row < shape.height; ++row, dense += shape.width_bytes) {
      std::memcpy(dense, host_bytes(part_of(from, row, slice).address), shape.width_bytes);
    }
  }
}

void scatter(const VolumeEnd& to, const std::byte* dense, const VolumeShape& shape) {
  for (size_t slice = 0; slice < shape.depth; ++slice) {
    for (size_t row = 0; row < shape.height; ++row, dense += shape.width_bytes) {
      std::memcpy(reinterpret_cast<void*>(part_of(to, row, slice).address), dense,
                  shape.width_bytes);
    }
  }
}

// Device memory for one piece, which lives as long as the stream uses it.
class Passage {
 public:
  explicit Passage(Stream* stream) : stream_(stream) {}
  ~Passage() {
    if (range_.base == 0) return;
    addresses().remove(range_.base, MemoryKind::pool, MemoryKind::pool, nullptr);
    send(stream_,
         wire::command::MemoryFreeOrdered{.stream = stream_->head.id(), .address = range_.base});
  }
  Passage(const Passage&) = delete;
  Passage& operator=(const Passage&) = delete;

  CUresult open(size_t bytes) {
    client::Answer<wire::command::MemoryAllocateOrdered> answer;
    const CUresult result =
        call(stream_->context,
             wire::command::MemoryAllocateOrdered{.stream = stream_->head.id(),
                                                  .device = stream_->context->device->index,
                                                  .bytes = bytes},
             &answer);
    if (result != CUDA_SUCCESS) return result;
    range_.base = answer.reply.address;
    range_.bytes = bytes;
    range_.context = stream_->context;
    range_.device = stream_->context->device;
    range_.kind = MemoryKind::pool;
    addresses().add(range_);
    return CUDA_SUCCESS;
  }
  VolumeEnd end(const VolumeShape& shape) const {
    VolumeEnd end;
    end.address = range_.base;
    end.on_device = true;
    end.pitch = shape.width_bytes;
    end.rows = shape.height;
    return end;
  }

 private:
  Stream* stream_;
  Range range_;
};

// Calls `copy(row, slice, shape)` for parts of at most piece_bytes: slices, or else rows of one.
template <typename Copy>
CUresult in_pieces(const VolumeShape& shape, size_t most, Copy&& copy) {
  const size_t slice_bytes = shape.width_bytes * shape.height;
  const size_t slices = slice_bytes <= most ? std::max<size_t>(most / slice_bytes, 1) : 1;
  const size_t rows =
      slice_bytes <= most ? shape.height : std::max<size_t>(most / shape.width_bytes, 1);
  for (size_t slice = 0; slice < shape.depth; slice += slices) {
    for (size_t row = 0; row < shape.height; row += rows) {
      const VolumeShape part{shape.width_bytes, std::min(rows, shape.height - row),
                             std::min(slices, shape.depth - slice)};
      if (const CUresult result = copy(row, slice, part); result != CUDA_SUCCESS) return result;
    }
  }
  return CUDA_SUCCESS;
}

CUresult send_inline(Stream* stream, const VolumeEnd& to, const std::byte* dense,
                     const VolumeShape& shape) {
  note_stored(stream->context->server, 0, dense, shape.bytes());
  const wire::VolumeEnd end = to_wire(to);
  return send(stream,
              wire::command::CopyVolumeToDevice{.stream = stream->head.id(),
                                                .width_bytes = shape.width_bytes,
                                                .height = shape.height,
                                                .depth = shape.depth,
                                                .end = std::as_bytes(std::span(&end, 1)),
                                                .content = std::span(dense, shape.bytes())});
}

CUresult to_server(Stream* stream, const VolumeEnd& to, const VolumeEnd& from,
                   const VolumeShape& shape) {
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  const size_t most = std::min(shape.bytes(), std::max(piece_bytes, shape.width_bytes));
  const std::unique_ptr<std::byte[]> dense(new std::byte[most]);
  if (shape.bytes() <= wire::max_inline_bytes) {
    gather(dense.get(), from, shape);
    return send_inline(stream, to, dense.get(), shape);
  }
  Passage passage(stream);
  if (const CUresult result = passage.open(most); result != CUDA_SUCCESS) return result;
  return in_pieces(shape, most, [&](size_t row, size_t slice, const VolumeShape& part) {
    gather(dense.get(), part_of(from, row, slice), part);
    const VolumeEnd middle = passage.end(part);
    const CUresult result =
        copy_to_device(stream, middle.address, dense.get(), part.bytes(), When::queued);
    if (result != CUDA_SUCCESS) return result;
    return copy_on_server(stream, part_of(to, row, slice), middle, part);
  });
}

CUresult receive_inline(Stream* stream, const VolumeEnd& to, const VolumeEnd& from,
                        const VolumeShape& shape) {
  const wire::VolumeEnd end = to_wire(from);
  client::Answer<wire::command::CopyVolumeToHost> answer;
  uint64_t count = 0;
  const CUresult result =
      call(stream->context,
           wire::command::CopyVolumeToHost{.stream = stream->head.id(),
                                           .width_bytes = shape.width_bytes,
                                           .height = shape.height,
                                           .depth = shape.depth,
                                           .end = std::as_bytes(std::span(&end, 1))},
           &answer, stream, &count);
  if (result != CUDA_SUCCESS) return result;
  if (answer.reply.content.size() != shape.bytes()) return CUDA_ERROR_UNKNOWN;
  client::Copies& copies = stream->context->server->copies();
  copies.report(&stream->progress, count);
  if (!copies.wait(&stream->progress, count)) return CUDA_ERROR_DEVICE_UNAVAILABLE;
  scatter(to, answer.reply.content.data(), shape);
  return CUDA_SUCCESS;
}

CUresult to_program(Stream* stream, const VolumeEnd& to, const VolumeEnd& from,
                    const VolumeShape& shape) {
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  if (shape.bytes() <= wire::max_inline_bytes) return receive_inline(stream, to, from, shape);
  const size_t most = std::min(shape.bytes(), std::max(piece_bytes, shape.width_bytes));
  const std::unique_ptr<std::byte[]> dense(new std::byte[most]);
  Passage passage(stream);
  if (const CUresult result = passage.open(most); result != CUDA_SUCCESS) return result;
  return in_pieces(shape, most, [&](size_t row, size_t slice, const VolumeShape& part) {
    const VolumeEnd middle = passage.end(part);
    CUresult result = copy_on_server(stream, middle, part_of(from, row, slice), part);
    if (result == CUDA_SUCCESS) {
      result = copy_to_host(stream, dense.get(), middle.address, part.bytes(), When::done);
    }
    if (result == CUDA_SUCCESS) scatter(part_of(to, row, slice), dense.get(), part);
    return result;
  });
}

// Through the program's memory; done when the call returns, as far as what follows in `stream` can
// see.
CUresult copy_between_servers(Stream* stream, const VolumeEnd& to, const VolumeEnd& from,
                              const VolumeShape& shape) {
  Stream* reading = stream;
  Stream* writing = stream;
  bool read_away = false, write_away = false;
  CUresult result = stream_for(owner_of(from), &reading, &read_away);
  if (result == CUDA_SUCCESS) result = stream_for(owner_of(to), &writing, &write_away);
  if (result != CUDA_SUCCESS) return result;
  const size_t most = std::min(shape.bytes(), std::max(piece_bytes, shape.width_bytes));
  const std::unique_ptr<std::byte[]> dense(new std::byte[most]);
  result = in_pieces(shape, most, [&](size_t row, size_t slice, const VolumeShape& part) {
    VolumeEnd middle;
    middle.address = reinterpret_cast<uint64_t>(dense.get());
    middle.pitch = part.width_bytes;
    middle.rows = part.height;
    const CUresult read = to_program(reading, middle, part_of(from, row, slice), part);
    return read == CUDA_SUCCESS ? to_server(writing, part_of(to, row, slice), middle, part) : read;
  });
  return result == CUDA_SUCCESS && write_away ? wait_all(writing) : result;
}

}  // namespace

CUresult send_volume(Stream* stream, const VolumeEnd& to, const VolumeEnd& from,
                     const VolumeShape& shape) {
  const wire::VolumeEnd ends[] = {to_wire(to), to_wire(from)};
  return send(stream, wire::command::CopyVolume{.stream = stream->head.id(),
                                                .width_bytes = shape.width_bytes,
                                                .height = shape.height,
                                                .depth = shape.depth,
                                                .ends = std::as_bytes(std::span(ends))});
}

CUresult copy_volume(Stream* stream, const VolumeEnd& to, const VolumeEnd& from,
                     const VolumeShape& shape, When when) {
  if (shape.bytes() == 0) return CUDA_SUCCESS;
  if (is_linear(to, shape) && is_linear(from, shape)) {
    return copy_any(stream, to.address, from.address, shape.bytes(), when);
  }
  if ((to.on_server() && !lies_on_device(to, shape)) ||
      (from.on_server() && !lies_on_device(from, shape))) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  bool away = false;
  if (to.on_server() && from.on_server()) {
    const Range target = owner_of(to);
    if (target.device->server != owner_of(from).device->server) {
      return copy_between_servers(stream, to, from, shape);
    }
    CUresult result = stream_for(target, &stream, &away, Beyond::server);
    if (result == CUDA_SUCCESS) result = copy_on_server(stream, to, from, shape);
    return result == CUDA_SUCCESS && away ? wait_all(stream) : result;
  }
  if (to.on_server() || from.on_server()) {
    const CUresult result = stream_for(owner_of(to.on_server() ? to : from), &stream, &away);
    if (result != CUDA_SUCCESS) return result;
  }
  const VolumeEnd& own = to.on_server() ? from : to;
  if (to.on_server() != from.on_server()) {
    bool there = addresses().is_shared(stream->context->server, own.address, extent(own, shape));
    if (is_captured(stream)) {
      const CUresult result =
          find_for_graph(stream->context, own.address, extent(own, shape), &there);
      if (result != CUDA_SUCCESS) return result;
    }
    if (there) {
      const CUresult result = copy_on_server(stream, to, from, shape);
      const bool waits = (away || when == When::done) && !is_captured(stream);
      return result == CUDA_SUCCESS && waits ? wait_all(stream) : result;
    }
    if (is_captured(stream)) return capture_volume(stream, to, from, shape);
  }
  const CUresult settled = settle_views(host_bytes(own.address), extent(own, shape));
  if (settled != CUDA_SUCCESS) return settled;
  if (from.on_server()) {
    const CUresult result = to_program(stream, to, from, shape);
    return result == CUDA_SUCCESS ? fetch_views() : result;
  }
  if (to.on_server()) {
    const CUresult result = to_server(stream, to, from, shape);
    // A plain copy is in place for every stream when it returns.
    return result == CUDA_SUCCESS && (away || when == When::done) ? wait_all(stream) : result;
  }
  for (size_t slice = 0; slice < shape.depth; ++slice) {
    for (size_t row = 0; row < shape.height; ++row) {
      const CUresult result = copy_any(stream, part_of(to, row, slice).address,
                                       part_of(from, row, slice).address, shape.width_bytes, when);
      if (result != CUDA_SUCCESS) return result;
    }
  }
  return CUDA_SUCCESS;
}

}  // namespace outboard::shim
