// The copy functions of two and three dimensions, of peers, and of arrays.
// SPDX-License-Identifier: Apache-2.0
#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/peers.hpp"
#include "shim/cuda/volume.hpp"

namespace outboard::shim {
namespace {

CUresult enter_default(Stream** stream) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  *stream = default_stream(context);
  return *stream != nullptr ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult enter_stream(CUstream value, Stream** stream) {
  Context* context = nullptr;
  return enter(value, &context, stream);
}

// An end as programs describe it.
struct Description {
  CUmemorytype type;
  const void* host;
  CUdeviceptr device;
  CUarray array;
  size_t pitch, rows;
  size_t x, y, z;
};

// Memory is found by what it is, whatever the program calls it: a device's view of host memory is
// host memory here.
CUresult read_memory(uint64_t address, bool must_be_device, VolumeEnd* end) {
  Range range;
  end->address = address;
  end->on_device = addresses().find(address, &range) && range.on_device();
  if (end->on_device) return CUDA_SUCCESS;
  return find_host(&end->address) || !must_be_device ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult read_end(const Description& from, const VolumeShape& shape, VolumeEnd* end) {
  if (from.type == CU_MEMORYTYPE_ARRAY) {
    end->array = find(from.array);
    end->x_bytes = from.x;
    end->y = from.y;
    end->z = from.z;
    return end->array != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
  }
  end->pitch = from.pitch != 0 ? from.pitch : shape.width_bytes + from.x;
  end->rows = from.rows != 0 ? from.rows : shape.height + from.y;
  if ((shape.height > 1 || shape.depth > 1) && end->pitch < shape.width_bytes) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (shape.depth > 1 && end->rows < shape.height) return CUDA_ERROR_INVALID_VALUE;
  CUresult result = CUDA_ERROR_INVALID_VALUE;
  switch (from.type) {
    case CU_MEMORYTYPE_HOST:
      end->address = reinterpret_cast<uint64_t>(from.host);
      result = CUDA_SUCCESS;
      break;
    case CU_MEMORYTYPE_DEVICE:
      result = read_memory(from.device, true, end);
      break;
    case CU_MEMORYTYPE_UNIFIED:
      result = read_memory(from.device, false, end);
      break;
    default:
      break;
  }
  if (result != CUDA_SUCCESS || end->address == 0) return CUDA_ERROR_INVALID_VALUE;
  size_t slice = 0, offset = 0;
  if (__builtin_mul_overflow(end->pitch, end->rows, &slice) ||
      __builtin_mul_overflow(slice, shape.depth + from.z, &offset)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  end->address += from.z * slice + from.y * end->pitch + from.x;
  return CUDA_SUCCESS;
}

bool is_sane(const VolumeShape& shape) {
  size_t bytes = 0;
  return !__builtin_mul_overflow(shape.width_bytes, shape.height, &bytes) &&
         !__builtin_mul_overflow(bytes, shape.depth, &bytes) && bytes <= SIZE_MAX / 4;
}

CUresult copy_described(Stream* stream, const Description& to, const Description& from,
                        const VolumeShape& shape, When when) {
  if (!is_sane(shape)) return CUDA_ERROR_INVALID_VALUE;
  if (shape.bytes() == 0) return CUDA_SUCCESS;
  VolumeEnd target, source;
  CUresult result = read_end(from, shape, &source);
  if (result == CUDA_SUCCESS) result = read_end(to, shape, &target);
  return result == CUDA_SUCCESS ? copy_volume(stream, target, source, shape, when) : result;
}

CUresult copy_2d(Stream* stream, const CUDA_MEMCPY2D* copy, When when) {
  if (copy == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Description from{copy->srcMemoryType, copy->srcHost,  copy->srcDevice,
                         copy->srcArray,      copy->srcPitch, 0,
                         copy->srcXInBytes,   copy->srcY,     0};
  const Description to{copy->dstMemoryType, copy->dstHost,  copy->dstDevice,
                       copy->dstArray,      copy->dstPitch, 0,
                       copy->dstXInBytes,   copy->dstY,     0};
  return copy_described(stream, to, from, {copy->WidthInBytes, copy->Height, 1}, when);
}

// CUDA_MEMCPY3D and CUDA_MEMCPY3D_PEER name these alike.
template <typename Copy>
CUresult copy_3d(Stream* stream, const Copy* copy, When when) {
  if (copy == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Description from{copy->srcMemoryType, copy->srcHost,  copy->srcDevice,
                         copy->srcArray,      copy->srcPitch, copy->srcHeight,
                         copy->srcXInBytes,   copy->srcY,     copy->srcZ};
  const Description to{copy->dstMemoryType, copy->dstHost,  copy->dstDevice,
                       copy->dstArray,      copy->dstPitch, copy->dstHeight,
                       copy->dstXInBytes,   copy->dstY,     copy->dstZ};
  return copy_described(stream, to, from, {copy->WidthInBytes, copy->Height, copy->Depth}, when);
}

CUresult check_peers(const CUDA_MEMCPY3D_PEER* copy) {
  if (copy == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const auto is_peer = [](CUmemorytype type) {
    return type == CU_MEMORYTYPE_DEVICE || type == CU_MEMORYTYPE_ARRAY;
  };
  if ((is_peer(copy->srcMemoryType) && find(copy->srcContext) == nullptr) ||
      (is_peer(copy->dstMemoryType) && find(copy->dstContext) == nullptr)) {
    return CUDA_ERROR_INVALID_CONTEXT;
  }
  return CUDA_SUCCESS;
}

Description of_array(CUarray array, size_t offset) {
  return {CU_MEMORYTYPE_ARRAY, nullptr, 0, array, 0, 0, offset, 0, 0};
}
Description of_device(CUdeviceptr address) {
  return {CU_MEMORYTYPE_DEVICE, nullptr, address, nullptr, 0, 0, 0, 0, 0};
}
Description of_host(const void* memory) {
  return {CU_MEMORYTYPE_HOST, memory, 0, nullptr, 0, 0, 0, 0, 0};
}

CUresult copy_row(const Description& to, const Description& from, size_t bytes) {
  Stream* stream = nullptr;
  const CUresult result = enter_default(&stream);
  return result == CUDA_SUCCESS ? copy_described(stream, to, from, {bytes, 1, 1}, When::done)
                                : result;
}

CUresult copy_row(const Description& to, const Description& from, size_t bytes, CUstream hStream) {
  Stream* stream = nullptr;
  const CUresult result = enter_stream(hStream, &stream);
  return result == CUDA_SUCCESS ? copy_described(stream, to, from, {bytes, 1, 1}, When::queued)
                                : result;
}

// Bytes of one element, by which batches count.
size_t element_bytes(const CUDA_ARRAY3D_DESCRIPTOR& of) {
  size_t channel = 1;
  switch (of.Format) {
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
      channel = 2;
      break;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT:
      channel = 4;
      break;
    default:
      break;
  }
  return channel * of.NumChannels;
}

CUresult read_operand(const CUmemcpy3DOperand& from, size_t element, Description* to) {
  if (from.type == CU_MEMCPY_OPERAND_TYPE_ARRAY) {
    *to = of_array(from.op.array.array, from.op.array.offset.x * element);
    to->y = from.op.array.offset.y;
    to->z = from.op.array.offset.z;
    return CUDA_SUCCESS;
  }
  if (from.type != CU_MEMCPY_OPERAND_TYPE_POINTER) return CUDA_ERROR_INVALID_VALUE;
  *to = of_device(from.op.ptr.ptr);
  to->type = CU_MEMORYTYPE_UNIFIED;
  to->pitch = from.op.ptr.rowLength * element;
  to->rows = from.op.ptr.layerHeight;
  return CUDA_SUCCESS;
}

CUresult copy_operation(Stream* stream, const CUDA_MEMCPY3D_BATCH_OP& copy) {
  // Elements are the array's; between pointers they are bytes.
  const Array* array = nullptr;
  for (const CUmemcpy3DOperand* operand : {&copy.src, &copy.dst}) {
    if (operand->type != CU_MEMCPY_OPERAND_TYPE_ARRAY) continue;
    array = find(operand->op.array.array);
    if (array == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  }
  const size_t element = array != nullptr ? element_bytes(array->descriptor) : 1;
  Description to, from;
  CUresult result = read_operand(copy.src, element, &from);
  if (result == CUDA_SUCCESS) result = read_operand(copy.dst, element, &to);
  if (result != CUDA_SUCCESS) return result;
  const VolumeShape shape{copy.extent.width * element, copy.extent.height, copy.extent.depth};
  if (shape.width_bytes == 0 || shape.height == 0 || shape.depth == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return copy_described(stream, to, from, shape, When::queued);
}

}  // namespace

CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D* pCopy) {
  Stream* stream = nullptr;
  const CUresult result = enter_default(&stream);
  return result == CUDA_SUCCESS ? copy_2d(stream, pCopy, When::done) : result;
}

CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D* pCopy) { return shim::cuMemcpy2D_v2(pCopy); }

CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* pCopy, CUstream hStream) {
  Stream* stream = nullptr;
  const CUresult result = enter_stream(hStream, &stream);
  return result == CUDA_SUCCESS ? copy_2d(stream, pCopy, When::queued) : result;
}

CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D* pCopy) {
  Stream* stream = nullptr;
  const CUresult result = enter_default(&stream);
  return result == CUDA_SUCCESS ? copy_3d(stream, pCopy, When::done) : result;
}

CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D* pCopy, CUstream hStream) {
  Stream* stream = nullptr;
  const CUresult result = enter_stream(hStream, &stream);
  return result == CUDA_SUCCESS ? copy_3d(stream, pCopy, When::queued) : result;
}

CUresult cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER* pCopy) {
  Stream* stream = nullptr;
  CUresult result = enter_default(&stream);
  if (result == CUDA_SUCCESS) result = check_peers(pCopy);
  if (result != CUDA_SUCCESS) return result;
  return between_peers(pCopy->dstContext, pCopy->srcContext,
                       [&] { return copy_3d(stream, pCopy, When::done); });
}

CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER* pCopy, CUstream hStream) {
  Stream* stream = nullptr;
  CUresult result = enter_stream(hStream, &stream);
  if (result == CUDA_SUCCESS) result = check_peers(pCopy);
  return result == CUDA_SUCCESS ? copy_3d(stream, pCopy, When::queued) : result;
}

CUresult cuMemcpyAtoA_v2(CUarray dstArray, size_t dstOffset, CUarray srcArray, size_t srcOffset,
                         size_t ByteCount) {
  return copy_row(of_array(dstArray, dstOffset), of_array(srcArray, srcOffset), ByteCount);
}
CUresult cuMemcpyAtoD_v2(CUdeviceptr dstDevice, CUarray srcArray, size_t srcOffset,
                         size_t ByteCount) {
  return copy_row(of_device(dstDevice), of_array(srcArray, srcOffset), ByteCount);
}
CUresult cuMemcpyDtoA_v2(CUarray dstArray, size_t dstOffset, CUdeviceptr srcDevice,
                         size_t ByteCount) {
  return copy_row(of_array(dstArray, dstOffset), of_device(srcDevice), ByteCount);
}
CUresult cuMemcpyAtoH_v2(void* dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount) {
  return copy_row(of_host(dstHost), of_array(srcArray, srcOffset), ByteCount);
}
CUresult cuMemcpyHtoA_v2(CUarray dstArray, size_t dstOffset, const void* srcHost,
                         size_t ByteCount) {
  return copy_row(of_array(dstArray, dstOffset), of_host(srcHost), ByteCount);
}
CUresult cuMemcpyAtoHAsync_v2(void* dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount,
                              CUstream hStream) {
  return copy_row(of_host(dstHost), of_array(srcArray, srcOffset), ByteCount, hStream);
}
CUresult cuMemcpyHtoAAsync_v2(CUarray dstArray, size_t dstOffset, const void* srcHost,
                              size_t ByteCount, CUstream hStream) {
  return copy_row(of_array(dstArray, dstOffset), of_host(srcHost), ByteCount, hStream);
}

CUresult cuMemcpy3DBatchAsync(size_t numOps, CUDA_MEMCPY3D_BATCH_OP* opList, size_t* failIdx,
                              unsigned long long flags, CUstream hStream) {
  Stream* stream = nullptr;
  if (failIdx != nullptr) *failIdx = SIZE_MAX;
  if (const CUresult result = enter_stream(hStream, &stream); result != CUDA_SUCCESS) return result;
  if (numOps == 0 || opList == nullptr || flags != 0 || stream->legacy) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i = 0; i < numOps; ++i) {
    const CUresult result = copy_operation(stream, opList[i]);
    if (result == CUDA_SUCCESS) continue;
    if (failIdx != nullptr) *failIdx = i;
    return result;
  }
  return CUDA_SUCCESS;
}

CUresult cuMemcpy3DBatchAsync_v2(size_t numOps, CUDA_MEMCPY3D_BATCH_OP* opList,
                                 unsigned long long flags, CUstream hStream) {
  return shim::cuMemcpy3DBatchAsync(numOps, opList, nullptr, flags, hStream);
}

}  // namespace outboard::shim
