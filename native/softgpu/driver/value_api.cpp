// Entry points about stream memory operations: waiting for and writing words.
// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "capture.hpp"
#include "guard.hpp"
#include "submit.hpp"
#include "values.hpp"

namespace softgpu {

CUresult value_operation(const Device& device, const CUstreamBatchMemOpParams& p,
                         std::optional<ValueOperation>* out) {
  ValueOperation op;
  switch (p.operation) {
    case CU_STREAM_MEM_OP_WAIT_VALUE_32:
    case CU_STREAM_MEM_OP_WAIT_VALUE_64:
      op.wait = true;
      op.wide = p.operation == CU_STREAM_MEM_OP_WAIT_VALUE_64;
      op.address = p.waitValue.address;
      op.value = op.wide ? p.waitValue.value64 : p.waitValue.value;
      op.flags = p.waitValue.flags;
      if ((op.flags & ~(3u | CU_STREAM_WAIT_VALUE_FLUSH)) != 0) return CUDA_ERROR_INVALID_VALUE;
      break;
    case CU_STREAM_MEM_OP_WRITE_VALUE_32:
    case CU_STREAM_MEM_OP_WRITE_VALUE_64:
      op.wide = p.operation == CU_STREAM_MEM_OP_WRITE_VALUE_64;
      op.address = p.writeValue.address;
      op.value = op.wide ? p.writeValue.value64 : p.writeValue.value;
      op.flags = p.writeValue.flags;
      if ((op.flags & ~1u) != 0) return CUDA_ERROR_INVALID_VALUE;
      break;
    case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
    case CU_STREAM_MEM_OP_BARRIER:
      out->reset();  // memory is coherent here
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  size_t bytes = op.wide ? 8 : 4;
  if (op.address % bytes != 0 || !device.space.contains(op.address, bytes)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *out = op;
  return CUDA_SUCCESS;
}

}  // namespace softgpu

using namespace softgpu;

namespace {

CUresult batch(CUstream handle, unsigned count, const CUstreamBatchMemOpParams* parameters,
               unsigned flags) {
  return with_context([&](Context& context) {
    if (count == 0) return CUDA_SUCCESS;
    if (parameters == nullptr || count > 256 || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    std::vector<ValueOperation> operations;
    for (unsigned i = 0; i < count; ++i) {
      std::optional<ValueOperation> op;
      if (CUresult r = value_operation(context.device, parameters[i], &op); r != CUDA_SUCCESS) {
        return r;
      }
      if (op) operations.push_back(*op);
    }
    std::shared_ptr<Stream> stream;
    if (CUresult r = stream_of(context, handle, &stream); r != CUDA_SUCCESS) return r;
    if (stream->capturing.load()) {
      return capture_operation(*stream, ValueContent{{parameters, parameters + count}});
    }
    for (ValueOperation& op : operations) {
      if (CUresult r = submit(context, handle, op); r != CUDA_SUCCESS) return r;
    }
    return CUDA_SUCCESS;
  });
}

CUresult one(CUstream stream, CUstreamBatchMemOpType type, CUdeviceptr address, uint64_t value,
             unsigned flags) {
  CUstreamBatchMemOpParams p{};
  p.operation = type;
  p.waitValue.address = address;  // both members have one layout
  p.waitValue.value64 = value;
  p.waitValue.flags = flags;
  return batch(stream, 1, &p, 0);
}

}  // namespace

extern "C" CUresult cuStreamWaitValue32_v2(CUstream s, CUdeviceptr address, cuuint32_t value,
                                           unsigned int flags) {
  return one(s, CU_STREAM_MEM_OP_WAIT_VALUE_32, address, value, flags);
}
extern "C" CUresult cuStreamWaitValue64_v2(CUstream s, CUdeviceptr address, cuuint64_t value,
                                           unsigned int flags) {
  return one(s, CU_STREAM_MEM_OP_WAIT_VALUE_64, address, value, flags);
}
extern "C" CUresult cuStreamWriteValue32_v2(CUstream s, CUdeviceptr address, cuuint32_t value,
                                            unsigned int flags) {
  return one(s, CU_STREAM_MEM_OP_WRITE_VALUE_32, address, value, flags);
}
extern "C" CUresult cuStreamWriteValue64_v2(CUstream s, CUdeviceptr address, cuuint64_t value,
                                            unsigned int flags) {
  return one(s, CU_STREAM_MEM_OP_WRITE_VALUE_64, address, value, flags);
}
extern "C" CUresult cuStreamBatchMemOp_v2(CUstream s, unsigned int count,
                                          CUstreamBatchMemOpParams* parameters,
                                          unsigned int flags) {
  return batch(s, count, parameters, flags);
}

// The first versions differ in nothing that this device has.
extern "C" CUresult cuStreamWaitValue32(CUstream s, CUdeviceptr address, cuuint32_t value,
                                        unsigned int flags) {
  return cuStreamWaitValue32_v2(s, address, value, flags);
}
extern "C" CUresult cuStreamWaitValue64(CUstream s, CUdeviceptr address, cuuint64_t value,
                                        unsigned int flags) {
  return cuStreamWaitValue64_v2(s, address, value, flags);
}
extern "C" CUresult cuStreamWriteValue32(CUstream s, CUdeviceptr address, cuuint32_t value,
                                         unsigned int flags) {
  return cuStreamWriteValue32_v2(s, address, value, flags);
}
extern "C" CUresult cuStreamWriteValue64(CUstream s, CUdeviceptr address, cuuint64_t value,
                                         unsigned int flags) {
  return cuStreamWriteValue64_v2(s, address, value, flags);
}
extern "C" CUresult cuStreamBatchMemOp(CUstream s, unsigned int count,
                                       CUstreamBatchMemOpParams* parameters, unsigned int flags) {
  return cuStreamBatchMemOp_v2(s, count, parameters, flags);
}
