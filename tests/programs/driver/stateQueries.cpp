// What contexts, devices, streams and events say of themselves, and what can be set of it.
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"

// Of cudaProfiler.h, which not every toolkit has.
extern "C" CUresult cuProfilerStart();
extern "C" CUresult cuProfilerStop();

namespace {

void devices(Program& program, const Device& device) {
  int version = 0, major = 0, minor = 0, can = -1, value = -1;
  CHECK(cuDriverGetVersion(&version));
  program.expect(version >= 12000, "the driver has a version");
  CHECK(cuDeviceComputeCapability(&major, &minor, device.device()));
  int attribute = 0;
  CHECK(cuDeviceGetAttribute(&attribute, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                             device.device()));
  program.expect(major == attribute, "both ways of asking for the capability agree");
  size_t total = 0;
  CHECK(cuDeviceTotalMem(&total, device.device()));
  program.expect(total > 0, "the device has memory");
  CUdevprop properties{};
  CHECK(cuDeviceGetProperties(&properties, device.device()));
  CHECK(
      cuDeviceGetAttribute(&attribute, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, device.device()));
  program.expect(properties.maxThreadsPerBlock == attribute, "properties are attributes");
  program.save(&properties.SIMDWidth, sizeof properties.SIMDWidth);
  program.expect(
      cuDeviceCanAccessPeer(&can, device.device(), device.device()) == CUDA_SUCCESS && can == 0,
      "a device is no peer of itself");
  program.expect(
      cuDeviceGetP2PAttribute(&value, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, device.device(),
                              device.device()) == CUDA_ERROR_INVALID_DEVICE,
      "and has no attributes as such (101)");
  CHECK(cuProfilerStart());
  CHECK(cuProfilerStop());
}

void abilities(Program& program, const Device& device) {
  size_t width = 0;
  CHECK(cuDeviceGetTexture1DLinearMaxWidth(&width, CU_AD_FORMAT_FLOAT, 4, device.device()));
  program.expect(width > 0, "a linear texture has a greatest width");
  program.save(&width, sizeof width);
  int has_affinity = -1;
  CHECK(cuDeviceGetExecAffinitySupport(&has_affinity, CU_EXEC_AFFINITY_TYPE_SM_COUNT,
                                       device.device()));
  program.expect(has_affinity == 0 || has_affinity == 1, "affinity is supported or not");
  const CUatomicOperation operations[] = {CU_ATOMIC_OPERATION_INTEGER_ADD, CU_ATOMIC_OPERATION_CAS};
  unsigned capabilities[] = {77, 77};
  CHECK(cuDeviceGetHostAtomicCapabilities(capabilities, operations, 2, device.device()));
  program.expect(capabilities[0] != 77 && capabilities[1] != 77, "every operation has an answer");
  program.save(capabilities, sizeof capabilities);
}

// How many clusters of blocks fit; of one block each, which every device can run.
void clusters(Program& program) {
  CUmodule module = nullptr;
  CUfunction step = nullptr;
  CHECK(cuModuleLoadData(&module, kKernels));
  CHECK(cuModuleGetFunction(&step, module, "step"));
  CUlaunchAttribute attribute{};
  attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
  attribute.value.clusterDim = {1, 1, 1};
  CUlaunchConfig config{};
  config.gridDimX = 64;
  config.gridDimY = config.gridDimZ = 1;
  config.blockDimX = 256;
  config.blockDimY = config.blockDimZ = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int count = -1, size = -1;
  CHECK(cuOccupancyMaxActiveClusters(&count, step, &config));
  program.expect(count > 0, "some clusters are resident at once");
  config.numAttrs = 0;
  CHECK(cuOccupancyMaxPotentialClusterSize(&size, step, &config));
  program.expect(size > 0, "a cluster has at least a block");
  program.save(&count, sizeof count);
  program.save(&size, sizeof size);
  program.expect(cuOccupancyMaxActiveClusters(nullptr, step, &config) == CUDA_ERROR_INVALID_VALUE,
                 "an answer needs a place (1)");
  CHECK(cuModuleUnload(module));
}

void contexts(Program& program, const Device& device) {
  unsigned api = 0, flags = 0;
  CHECK(cuCtxGetApiVersion(device.context(), &api));
  program.expect(api >= 3010, "a context has an API version");
  CHECK(cuCtxGetFlags(&flags));
  CHECK(cuCtxSetFlags(flags));
  CUdevice of = -1;
  CHECK(cuCtxGetDevice(&of));
  program.expect(of == device.device(), "the context's device");
  int least = -1, greatest = 1;
  CHECK(cuCtxGetStreamPriorityRange(&least, &greatest));
  program.expect(greatest <= least, "higher priorities are lower numbers");
  program.save(&least, sizeof least);
  program.save(&greatest, sizeof greatest);
  CUfunc_cache cache = CU_FUNC_CACHE_PREFER_EQUAL;
  CHECK(cuCtxGetCacheConfig(&cache));
  CHECK(cuCtxSetCacheConfig(cache));
  CUsharedconfig shared = CU_SHARED_MEM_CONFIG_DEFAULT_BANK_SIZE;
  CHECK(cuCtxGetSharedMemConfig(&shared));
  CHECK(cuCtxSetSharedMemConfig(shared));
  CHECK(cuCtxResetPersistingL2Cache());
  unsigned primary = 0;
  int active = 0;
  CHECK(cuDevicePrimaryCtxGetState(device.device(), &primary, &active));
  program.expect(active == 1, "the primary context is active");
  CHECK(cuDevicePrimaryCtxSetFlags(device.device(), primary));
  unsigned long long id = 0, other_id = 0;
  CHECK(cuCtxGetId(device.context(), &id));

  CUcontext other = nullptr, popped = nullptr;
  CHECK(cuCtxCreate(&other, nullptr, 0, device.device()));
  CHECK(cuCtxGetId(other, &other_id));
  program.expect(id != other_id, "contexts have ids of their own");
  CHECK(cuCtxPopCurrent(&popped));
  program.expect(popped == other, "a new context is on top of the stack");
  CHECK(cuCtxPushCurrent(other));
  CHECK(cuCtxSynchronize());
  CHECK(cuCtxDestroy(other));
  CHECK(cuCtxSetCurrent(device.context()));
  program.expect(cuCtxGetFlags(nullptr) == CUDA_ERROR_INVALID_VALUE, "no place for an answer");
}

void streams(Program& program, const Device& device) {
  int least = 0, greatest = 0, priority = 7;
  CHECK(cuCtxGetStreamPriorityRange(&least, &greatest));
  CUstream stream = nullptr, other = nullptr;
  CHECK(cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, greatest));
  CHECK(cuStreamCreate(&other, CU_STREAM_DEFAULT));
  CHECK(cuStreamGetPriority(stream, &priority));
  program.expect(priority == greatest, "a stream keeps its priority");
  unsigned flags = 7;
  CHECK(cuStreamGetFlags(stream, &flags));
  program.expect(flags == CU_STREAM_NON_BLOCKING, "and its flags");
  CUcontext context = nullptr;
  CHECK(cuStreamGetCtx(stream, &context));
  program.expect(context == device.context(), "it is of the context that was current");
  CUdevice of = -1;
  CHECK(cuStreamGetDevice(stream, &of));
  program.expect(of == device.device(), "and of its device");
  unsigned long long id = 0, other_id = 0;
  CHECK(cuStreamGetId(stream, &id));
  CHECK(cuStreamGetId(other, &other_id));
  program.expect(id != other_id, "streams have ids of their own");
  CUstreamAttrValue value{};
  value.syncPolicy = CU_SYNC_POLICY_YIELD;
  CHECK(cuStreamSetAttribute(stream, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value));
  CHECK(cuStreamCopyAttributes(other, stream));
  value = {};
  CHECK(cuStreamGetAttribute(other, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value));
  program.expect(value.syncPolicy == CU_SYNC_POLICY_YIELD, "attributes are copied");

  // Words that one stream waits for and another writes.
  const CUdeviceptr words = upload({0, 0, 0, 0});
  CHECK(cuStreamWaitValue64(stream, words + 8, 5, CU_STREAM_WAIT_VALUE_EQ));
  CHECK(cuStreamWriteValue32(stream, words, 1, 0));
  program.expect(cuStreamQuery(stream) == CUDA_ERROR_NOT_READY, "the stream waits (600)");
  CUstreamBatchMemOpParams operations[2] = {};
  operations[0].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  operations[0].writeValue.address = words + 4;
  operations[0].writeValue.value = 9;
  operations[1].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_64;
  operations[1].writeValue.address = words + 8;
  operations[1].writeValue.value64 = 5;
  CHECK(cuStreamBatchMemOp(other, 2, operations, 0));
  CHECK(cuStreamSynchronize(stream));
  const std::vector<int> out = download(words, 4);
  program.expect(out == std::vector<int>({1, 9, 5, 0}), "all words are written");
  program.save(out);
  CHECK(cuStreamWriteValue64(stream, words, 77, 0));
  CHECK(cuStreamWaitValue32(stream, words, 77, CU_STREAM_WAIT_VALUE_GEQ));
  CHECK(cuStreamSynchronize(stream));
  program.expect(cuStreamBatchMemOp(other, 0, operations, 0) == CUDA_SUCCESS,
                 "a batch of nothing is nothing");
  CHECK(cuMemFree(words));
  CHECK(cuStreamDestroy(stream));
  CHECK(cuStreamDestroy(other));
}

void events(Program& program) {
  CUevent start = nullptr, end = nullptr, silent = nullptr;
  CHECK(cuEventCreate(&start, CU_EVENT_DEFAULT));
  CHECK(cuEventCreate(&end, CU_EVENT_BLOCKING_SYNC));
  CHECK(cuEventCreate(&silent, CU_EVENT_DISABLE_TIMING));
  CHECK(cuEventRecordWithFlags(start, nullptr, CU_EVENT_RECORD_DEFAULT));
  CHECK(cuEventRecord(silent, nullptr));
  CHECK(cuEventRecord(end, nullptr));
  CHECK(cuEventSynchronize(end));
  float milliseconds = -1;
  CHECK(cuEventElapsedTime(&milliseconds, start, end));
  program.expect(milliseconds >= 0, "time passes forwards");
  program.expect(cuEventElapsedTime(&milliseconds, start, silent) == CUDA_ERROR_INVALID_HANDLE,
                 "an event without timing has none (400)");
  program.expect(cuEventRecordWithFlags(start, nullptr, 64) == CUDA_ERROR_INVALID_VALUE,
                 "flags that do not exist are refused");
  CHECK(cuEventDestroy(start));
  CHECK(cuEventDestroy(end));
  CHECK(cuEventDestroy(silent));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("stateQueries", argc, argv);
  const Device device;
  devices(program, device);
  abilities(program, device);
  clusters(program);
  contexts(program, device);
  streams(program, device);
  events(program);
  return program.finish();
}
