// Entry points that copy rows of arrays, and batches of copies in three dimensions.
// SPDX-License-Identifier: Apache-2.0
#include "api.hpp"
#include "array.hpp"

using namespace softgpu;

namespace {

void from_array(CUDA_MEMCPY3D* copy, CUarray array, size_t offset) {
  copy->srcMemoryType = CU_MEMORYTYPE_ARRAY;
  copy->srcArray = array;
  copy->srcXInBytes = offset;
}

void to_array(CUDA_MEMCPY3D* copy, CUarray array, size_t offset) {
  copy->dstMemoryType = CU_MEMORYTYPE_ARRAY;
  copy->dstArray = array;
  copy->dstXInBytes = offset;
}

CUDA_MEMCPY3D row(size_t bytes) {
  CUDA_MEMCPY3D copy{};
  copy.WidthInBytes = bytes;
  copy.Height = 1;
  copy.Depth = 1;
  return copy;
}

CUDA_MEMCPY3D row_to_host(void* to, CUarray from, size_t offset, size_t bytes) {
  CUDA_MEMCPY3D copy = row(bytes);
  from_array(&copy, from, offset);
  copy.dstMemoryType = CU_MEMORYTYPE_HOST;
  copy.dstHost = to;
  return copy;
}

CUDA_MEMCPY3D row_from_host(CUarray to, size_t offset, const void* from, size_t bytes) {
  CUDA_MEMCPY3D copy = row(bytes);
  to_array(&copy, to, offset);
  copy.srcMemoryType = CU_MEMORYTYPE_HOST;
  copy.srcHost = from;
  return copy;
}

/// The array of a batched copy, by whose elements it counts; null where both ends are pointers.
std::shared_ptr<Array> array_of(const CUDA_MEMCPY3D_BATCH_OP& op) {
  for (const CUmemcpy3DOperand* end : {&op.src, &op.dst}) {
    if (end->type == CU_MEMCPY_OPERAND_TYPE_ARRAY) return arrays().find(end->op.array.array);
  }
  return nullptr;
}

CUresult batched(const CUDA_MEMCPY3D_BATCH_OP& op, CUstream stream) {
  bool has_array =
      op.src.type == CU_MEMCPY_OPERAND_TYPE_ARRAY || op.dst.type == CU_MEMCPY_OPERAND_TYPE_ARRAY;
  std::shared_ptr<Array> array = array_of(op);
  if (has_array && !array) return CUDA_ERROR_INVALID_HANDLE;
  size_t element = array ? array->element_bytes : 1;
  if (op.extent.width == 0 || op.extent.height == 0 || op.extent.depth == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  CUDA_MEMCPY3D copy{};
  copy.WidthInBytes = op.extent.width * element;
  copy.Height = op.extent.height;
  copy.Depth = op.extent.depth;
  if (op.src.type == CU_MEMCPY_OPERAND_TYPE_ARRAY) {
    from_array(&copy, op.src.op.array.array, op.src.op.array.offset.x * element);
    copy.srcY = op.src.op.array.offset.y;
    copy.srcZ = op.src.op.array.offset.z;
  } else {
    copy.srcMemoryType = CU_MEMORYTYPE_UNIFIED;
    copy.srcDevice = op.src.op.ptr.ptr;
    copy.srcPitch = op.src.op.ptr.rowLength * element;
    copy.srcHeight = op.src.op.ptr.layerHeight;
  }
  if (op.dst.type == CU_MEMCPY_OPERAND_TYPE_ARRAY) {
    to_array(&copy, op.dst.op.array.array, op.dst.op.array.offset.x * element);
    copy.dstY = op.dst.op.array.offset.y;
    copy.dstZ = op.dst.op.array.offset.z;
  } else {
    copy.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
    copy.dstDevice = op.dst.op.ptr.ptr;
    copy.dstPitch = op.dst.op.ptr.rowLength * element;
    copy.dstHeight = op.dst.op.ptr.layerHeight;
  }
  return cuMemcpy3DAsync_v2(&copy, stream);
}

}  // namespace

extern "C" CUresult cuMemcpyAtoA_v2(CUarray to, size_t to_offset, CUarray from, size_t from_offset,
                                    size_t bytes) {
  CUDA_MEMCPY3D copy = row(bytes);
  from_array(&copy, from, from_offset);
  to_array(&copy, to, to_offset);
  return cuMemcpy3D_v2(&copy);
}
extern "C" CUresult cuMemcpyAtoD_v2(CUdeviceptr to, CUarray from, size_t offset, size_t bytes) {
  CUDA_MEMCPY3D copy = row(bytes);
  from_array(&copy, from, offset);
  copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.dstDevice = to;
  return cuMemcpy3D_v2(&copy);
}
extern "C" CUresult cuMemcpyDtoA_v2(CUarray to, size_t offset, CUdeviceptr from, size_t bytes) {
  CUDA_MEMCPY3D copy = row(bytes);
  to_array(&copy, to, offset);
  copy.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.srcDevice = from;
  return cuMemcpy3D_v2(&copy);
}
extern "C" CUresult cuMemcpyAtoH_v2(void* to, CUarray from, size_t offset, size_t bytes) {
  CUDA_MEMCPY3D copy = row_to_host(to, from, offset, bytes);
  return cuMemcpy3D_v2(&copy);
}
extern "C" CUresult cuMemcpyHtoA_v2(CUarray to, size_t offset, const void* from, size_t bytes) {
  CUDA_MEMCPY3D copy = row_from_host(to, offset, from, bytes);
  return cuMemcpy3D_v2(&copy);
}
extern "C" CUresult cuMemcpyAtoHAsync_v2(void* to, CUarray from, size_t offset, size_t bytes,
                                         CUstream stream) {
  CUDA_MEMCPY3D copy = row_to_host(to, from, offset, bytes);
  return cuMemcpy3DAsync_v2(&copy, stream);
}
extern "C" CUresult cuMemcpyHtoAAsync_v2(CUarray to, size_t offset, const void* from, size_t bytes,
                                         CUstream stream) {
  CUDA_MEMCPY3D copy = row_from_host(to, offset, from, bytes);
  return cuMemcpy3DAsync_v2(&copy, stream);
}

extern "C" CUresult cuMemcpy3DBatchAsync(size_t count, CUDA_MEMCPY3D_BATCH_OP* operations,
                                         size_t* failed, unsigned long long flags,
                                         CUstream stream) {
  if (failed != nullptr) *failed = SIZE_MAX;
  if (count == 0 || operations == nullptr || flags != 0 || stream == nullptr) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i = 0; i < count; ++i) {
    if (CUresult r = batched(operations[i], stream); r != CUDA_SUCCESS) {
      if (failed != nullptr) *failed = i;
      return r;
    }
  }
  return CUDA_SUCCESS;
}
extern "C" CUresult cuMemcpy3DBatchAsync_v2(size_t count, CUDA_MEMCPY3D_BATCH_OP* operations,
                                            unsigned long long flags, CUstream stream) {
  return cuMemcpy3DBatchAsync(count, operations, nullptr, flags, stream);
}
