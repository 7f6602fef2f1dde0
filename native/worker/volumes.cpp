// Copies in two and three dimensions, and of arrays.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "wire/frame.hpp"
#include "wire/volume.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

struct Shape {
  uint64_t width;
  uint64_t height;
  uint64_t depth;

  bool empty() const { return width == 0 || height == 0 || depth == 0; }
  bool bytes(uint64_t* out) const {
    return !__builtin_mul_overflow(width, height, out) && !__builtin_mul_overflow(*out, depth, out);
  }
};

// An end as the driver wants it.
struct Side {
  CUmemorytype type = CU_MEMORYTYPE_HOST;
  std::byte* host = nullptr;
  CUdeviceptr address = 0;
  CUarray array = nullptr;
  uint64_t pitch = 0;
  uint64_t rows = 0;
  uint64_t x = 0, y = 0, z = 0;
  CUcontext context = nullptr;  ///< null for the program's own end
  unsigned device = 0;
};

// Bytes from the first to the last of device memory that a copy touches.
bool extent(const wire::VolumeEnd& end, const Shape& shape, uint64_t* bytes) {
  uint64_t slice = 0, slices = 0, rows = 0;
  if (shape.height > 1 && end.pitch < shape.width) return false;
  if (shape.depth > 1 && end.rows < shape.height) return false;
  return !__builtin_mul_overflow(end.pitch, end.rows, &slice) &&
         !__builtin_mul_overflow(slice, shape.depth - 1, &slices) &&
         !__builtin_mul_overflow(end.pitch, shape.height - 1, &rows) &&
         !__builtin_add_overflow(slices, rows, bytes) &&
         !__builtin_add_overflow(*bytes, shape.width, bytes);
}

CUresult resolve(Worker& worker, const wire::VolumeEnd& end, const Shape& shape, Side* side) {
  if (end.array != 0) {
    // Of memory the address alone says where: anything more would lead past what is checked below.
    side->x = end.x_bytes;
    side->y = end.y;
    side->z = end.z;
    const Array* array = worker.tables.arrays.find(end.array);
    if (!array) return CUDA_ERROR_INVALID_HANDLE;
    side->type = CU_MEMORYTYPE_ARRAY;
    side->array = array->handle;
    side->context = array->context->handle;
    side->device = array->context->device;
    return CUDA_SUCCESS;
  }
  uint64_t bytes = 0;
  if (!extent(end, shape, &bytes)) return CUDA_ERROR_INVALID_VALUE;
  const Allocation* memory = worker.memory.find(end.address, bytes);
  if (!memory) return CUDA_ERROR_INVALID_VALUE;
  side->pitch = std::max(end.pitch, shape.width);
  side->rows = std::max(end.rows, shape.height);
  if (memory->host) {
    side->host = reinterpret_cast<std::byte*>(end.address);
    return CUDA_SUCCESS;
  }
  side->type = CU_MEMORYTYPE_DEVICE;
  side->address = end.address;
  side->context = context_of(worker, *memory);
  side->device = memory->device;
  return side->context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

Side staged_side(std::byte* staged, const Shape& shape) {
  Side side;
  side.host = staged;
  side.pitch = shape.width;
  side.rows = shape.height;
  return side;
}

// CUDA_MEMCPY3D and CUDA_MEMCPY3D_PEER name these alike.
template <typename Copy>
void describe(const Side& to, const Side& from, const Shape& shape, Copy* copy) {
  copy->srcMemoryType = from.type;
  copy->srcHost = from.host;
  copy->srcDevice = from.address;
  copy->srcArray = from.array;
  copy->srcPitch = from.pitch;
  copy->srcHeight = from.rows;
  copy->srcXInBytes = from.x;
  copy->srcY = from.y;
  copy->srcZ = from.z;
  copy->dstMemoryType = to.type;
  copy->dstHost = to.host;
  copy->dstDevice = to.address;
  copy->dstArray = to.array;
  copy->dstPitch = to.pitch;
  copy->dstHeight = to.rows;
  copy->dstXInBytes = to.x;
  copy->dstY = to.y;
  copy->dstZ = to.z;
  copy->WidthInBytes = shape.width;
  copy->Height = shape.height;
  copy->Depth = shape.depth;
}

CUresult copy_volume(const Worker& worker, const Side& to, const Side& from, const Shape& shape,
                     CUstream stream) {
  const bool peers = to.context && from.context && to.device != from.device;
  if (!peers) {
    CUDA_MEMCPY3D copy;
    std::memset(&copy, 0, sizeof copy);
    describe(to, from, shape, &copy);
    return worker.driver().cuMemcpy3DAsync_v2(&copy, stream);
  }
  CUDA_MEMCPY3D_PEER copy;
  std::memset(&copy, 0, sizeof copy);
  describe(to, from, shape, &copy);
  copy.dstContext = to.context;
  copy.srcContext = from.context;
  return worker.driver().cuMemcpy3DPeerAsync(&copy, stream);
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::CopyVolume& command) {
  const Shape shape{command.width_bytes, command.height, command.depth};
  wire::VolumeEnd to_end, from_end;
  if (!wire::read_packed(command.ends, &to_end, &from_end)) return CUDA_ERROR_INVALID_VALUE;
  if (shape.empty()) return CUDA_SUCCESS;
  Side to, from;
  CUresult result = resolve(worker, to_end, shape, &to);
  if (result == CUDA_SUCCESS) result = resolve(worker, from_end, shape, &from);
  if (result != CUDA_SUCCESS) return result;
  return copy_volume(worker, to, from, shape, worker.issuing().handle);
}

CUresult execute(Worker& worker, const wire::command::CopyVolumeToDevice& command) {
  Stream& stream = worker.issuing();
  const Shape shape{command.width_bytes, command.height, command.depth};
  wire::VolumeEnd end;
  uint64_t bytes = 0;
  if (!wire::read_packed(command.end, &end) || !shape.bytes(&bytes) ||
      bytes != command.content.size() || bytes > wire::max_inline_bytes) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (stream.capture) return CUDA_ERROR_NOT_SUPPORTED;
  if (bytes == 0) return CUDA_SUCCESS;
  Side to;
  if (const CUresult result = resolve(worker, end, shape, &to); result != CUDA_SUCCESS) {
    return result;
  }
  std::byte* staged = stage(worker, stream, bytes);
  if (!staged) return CUDA_ERROR_OUT_OF_MEMORY;
  std::memcpy(staged, command.content.data(), bytes);
  return copy_volume(worker, to, staged_side(staged, shape), shape, stream.handle);
}

void execute(Worker& worker, const Request& request,
             const wire::command::CopyVolumeToHost& command) {
  const std::shared_ptr<Stream> stream = worker.issuing().shared_from_this();
  const Shape shape{command.width_bytes, command.height, command.depth};
  wire::VolumeEnd end;
  uint64_t bytes = 0;
  if (!wire::read_packed(command.end, &end) || shape.empty() || !shape.bytes(&bytes) ||
      bytes > wire::max_inline_bytes) {
    return worker.answer(request, CUDA_ERROR_INVALID_VALUE);
  }
  if (stream->capture) return worker.answer(request, CUDA_ERROR_NOT_SUPPORTED);
  Side from;
  CUresult result = resolve(worker, end, shape, &from);
  if (result != CUDA_SUCCESS) return worker.answer(request, result);
  std::byte* staged = stage(worker, *stream, bytes);
  if (!staged) return worker.answer(request, CUDA_ERROR_OUT_OF_MEMORY);
  result = copy_volume(worker, staged_side(staged, shape), from, shape, stream->handle);
  if (result != CUDA_SUCCESS) return worker.answer(request, result);
  worker.completion.when_done(*stream, [&worker, request, stream, staged, bytes](CUresult outcome) {
    if (outcome == CUDA_SUCCESS) worker.send_text(*stream->context, stream.get());
    wire::command::CopyVolumeToHost::Reply reply;
    if (outcome == CUDA_SUCCESS) reply.content = {staged, bytes};
    worker.reply(request, outcome, reply);
  });
}

}  // namespace outboard::worker
