// Generated bodies: a call goes through codec, dispatch and driver table and comes back.
// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <dlfcn.h>
#include <doctest/doctest.h>

#include <cstring>

#include "generated/execute.hpp"
#include "generated/shim_api.hpp"
#include "shim/cuda/remote.hpp"
#include "worker/worker.hpp"

namespace outboard {
namespace {

worker::Worker the_worker;
CUfunc_cache cache_config = CU_FUNC_CACHE_PREFER_NONE;
CUdevice seen_device = -1;
CUfunction seen_function = nullptr;
cuuint64_t seen_dim = 0;
cuuint64_t seen_stride = 0;
void* seen_address = nullptr;

// Connects the client's bodies with the worker's.
void connect() {
  the_worker = {};
  std::string missing;
  the_worker.table.load(dlopen(nullptr, RTLD_NOW), &missing);
  shim::enter_result = CUDA_SUCCESS;
  shim::carrier = [](wire::Op op, std::span<const std::byte> payload, CUresult* result,
                     std::vector<uint64_t>* reply) {
    if (!worker::dispatch(the_worker, op, worker::Request{1}, payload)) return false;
    *result = the_worker.result;
    *reply = the_worker.bytes;
    return true;
  };
}

TEST_CASE("a value is set and read back") {
  connect();
  the_worker.table.cuCtxSetCacheConfig = [](CUfunc_cache value) {
    cache_config = value;
    return CUDA_SUCCESS;
  };
  the_worker.table.cuCtxGetCacheConfig = [](CUfunc_cache* out) {
    *out = cache_config;
    return CUDA_SUCCESS;
  };
  CHECK(shim::cuCtxSetCacheConfig(CU_FUNC_CACHE_PREFER_L1) == CUDA_SUCCESS);
  CUfunc_cache got = CU_FUNC_CACHE_PREFER_NONE;
  CHECK(shim::cuCtxGetCacheConfig(&got) == CUDA_SUCCESS);
  CHECK(got == CU_FUNC_CACHE_PREFER_L1);
}

TEST_CASE("the driver's error is the call's, and nothing is written") {
  connect();
  the_worker.table.cuCtxGetCacheConfig = [](CUfunc_cache* out) {
    *out = CU_FUNC_CACHE_PREFER_SHARED;
    return CUDA_ERROR_INVALID_CONTEXT;
  };
  CUfunc_cache got = CU_FUNC_CACHE_PREFER_NONE;
  CHECK(shim::cuCtxGetCacheConfig(&got) == CUDA_ERROR_INVALID_CONTEXT);
  CHECK(got == CU_FUNC_CACHE_PREFER_NONE);
}

TEST_CASE("a function that the driver lacks is not supported, a null pointer is invalid") {
  connect();
  CUfunc_cache got = CU_FUNC_CACHE_PREFER_NONE;
  CHECK(shim::cuCtxGetCacheConfig(&got) == CUDA_ERROR_NOT_SUPPORTED);
  CHECK(shim::cuCtxGetCacheConfig(nullptr) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("what forbids the call comes before all else") {
  connect();
  shim::enter_result = CUDA_ERROR_NOT_INITIALIZED;
  CHECK(shim::cuCtxGetCacheConfig(nullptr) == CUDA_ERROR_NOT_INITIALIZED);
}

TEST_CASE("handles and devices are translated on both sides") {
  connect();
  the_worker.table.cuFuncLoad = [](CUfunction function) {
    seen_function = function;
    return CUDA_SUCCESS;
  };
  CHECK(shim::cuFuncLoad(reinterpret_cast<CUfunction>(uintptr_t{5})) == CUDA_SUCCESS);
  CHECK(seen_function == reinterpret_cast<CUfunction>(uintptr_t{1006}));
  CHECK(shim::cuFuncLoad(nullptr) == CUDA_ERROR_INVALID_HANDLE);

  the_worker.table.cuDeviceGetExecAffinitySupport = [](int* out, CUexecAffinityType,
                                                       CUdevice device) {
    seen_device = device;
    *out = 1;
    return CUDA_SUCCESS;
  };
  int supported = 0;
  CHECK(shim::cuDeviceGetExecAffinitySupport(&supported, CU_EXEC_AFFINITY_TYPE_SM_COUNT, 3) ==
        CUDA_SUCCESS);
  CHECK(supported == 1);
  CHECK(seen_device == 113);
}

TEST_CASE("arrays go in and come out by their counts") {
  connect();
  the_worker.table.cuDeviceGetHostAtomicCapabilities =
      [](unsigned int* out, const CUatomicOperation* operations, unsigned int count, CUdevice) {
        for (unsigned int i = 0; i < count; ++i)
          out[i] = 100 + static_cast<unsigned>(operations[i]);
        return CUDA_SUCCESS;
      };
  const CUatomicOperation operations[3] = {CU_ATOMIC_OPERATION_INTEGER_ADD,
                                           CU_ATOMIC_OPERATION_INTEGER_MIN,
                                           CU_ATOMIC_OPERATION_INTEGER_MAX};
  unsigned int capabilities[4] = {0, 0, 0, 7};
  CHECK(shim::cuDeviceGetHostAtomicCapabilities(capabilities, operations, 3, 0) == CUDA_SUCCESS);
  CHECK(capabilities[1] == 100u + CU_ATOMIC_OPERATION_INTEGER_MIN);
  CHECK(capabilities[3] == 7);
  CHECK(shim::cuDeviceGetHostAtomicCapabilities(capabilities, operations, 1u << 30, 0) ==
        CUDA_ERROR_INVALID_VALUE);
  CHECK(shim::cuDeviceGetHostAtomicCapabilities(capabilities, nullptr, 1, 0) ==
        CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("a count that does not fit its array is refused by the worker") {
  connect();
  bool called = false;
  static bool* reached = &called;
  the_worker.table.cuDeviceGetHostAtomicCapabilities = [](unsigned int*, const CUatomicOperation*,
                                                          unsigned int, CUdevice) {
    *reached = true;
    return CUDA_SUCCESS;
  };
  const CUatomicOperation one = CU_ATOMIC_OPERATION_INTEGER_ADD;
  wire::command::DeviceGetHostAtomicCapabilities command{.count = 9};
  command.operations = std::as_bytes(std::span(&one, 1));
  CUresult result = CUDA_SUCCESS;
  std::vector<uint64_t> reply;
  REQUIRE(shim::carry(command, &result, &reply));
  CHECK(result == CUDA_ERROR_INVALID_VALUE);
  CHECK_FALSE(called);
}

TEST_CASE("structures go in and come out as they stand in memory") {
  connect();
  the_worker.table.cuTensorMapEncodeTiled =
      [](CUtensorMap* out, CUtensorMapDataType, cuuint32_t, void* address, const cuuint64_t* dim,
         const cuuint64_t* strides, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
         CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
        seen_address = address;
        seen_dim = dim[1];
        seen_stride = strides[0];
        std::memset(out, 0x5a, sizeof *out);
        return CUDA_SUCCESS;
      };
  CUtensorMap map{};
  const auto address = reinterpret_cast<void*>(uintptr_t{0x200000000000});
  const cuuint64_t dim[2] = {64, 32};
  const cuuint64_t strides[1] = {256};
  const cuuint32_t box[2] = {8, 8};
  CHECK(shim::cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, address, dim,
                                     strides, box, box, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                     CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                                     CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS);
  CHECK(seen_address == address);
  CHECK(seen_dim == 32);
  CHECK(seen_stride == 256);
  CHECK(map.opaque[15] == 0x5a5a5a5a5a5a5a5a);

  the_worker.table.cuTensorMapReplaceAddress = [](CUtensorMap* inout, void*) {
    inout->opaque[0] += 1;
    return CUDA_SUCCESS;
  };
  CHECK(shim::cuTensorMapReplaceAddress(&map, address) == CUDA_SUCCESS);
  CHECK(map.opaque[0] == 0x5a5a5a5a5a5a5a5b);
  CHECK(map.opaque[15] == 0x5a5a5a5a5a5a5a5a);
}

TEST_CASE("what cannot be decoded, or is no command, is a breach of the protocol") {
  connect();
  const std::byte junk[3] = {};
  CHECK_FALSE(worker::dispatch(the_worker, wire::Op::Launch, worker::Request{}, junk));
  CHECK_FALSE(worker::dispatch(the_worker, wire::Op::count, worker::Request{}, {}));
  CHECK_FALSE(worker::dispatch(the_worker, static_cast<wire::Op>(0), worker::Request{}, {}));
}

}  // namespace
}  // namespace outboard
