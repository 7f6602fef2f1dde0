// Green contexts: a device divided, streams that run on one part, waiting for a whole part.
// SPDX-License-Identifier: Apache-2.0
#include <set>

#include "driver.hpp"

namespace {

// where(out): the multiprocessor that each block runs on.
constexpr const char* kWhere = R"(
.version 7.0
.target sm_70
.address_size 64

.visible .entry where(.param .u64 out) {
  .reg .b32 %r<4>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [out];
  mov.u32 %r1, %ctaid.x;
  mov.u32 %r2, %smid;
  mul.wide.u32 %rd2, %r1, 4;
  add.s64 %rd3, %rd1, %rd2;
  st.global.u32 [%rd3], %r2;
  ret;
}
)";
constexpr unsigned kBlocks = 256;

struct Part {
  CUgreenCtx green = nullptr;
  CUcontext context = nullptr;
  CUstream stream = nullptr;
  unsigned multiprocessors = 0;
};

bool busy(CUevent event) { return cuEventQuery(event) == CUDA_ERROR_NOT_READY; }

CUevent make_event() {
  CUevent event = nullptr;
  CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
  return event;
}

void save(Program& program, const CUdevResource& resource) {
  const unsigned shown[] = {static_cast<unsigned>(resource.type), resource.sm.smCount,
                            resource.sm.minSmPartitionSize, resource.sm.smCoscheduledAlignment};
  program.save(shown, sizeof shown);
}

// Two parts of the smallest size; what stays is left unused.
std::vector<Part> divide(Program& program, const Device& device) {
  CUdevResource whole{}, of_context{};
  CHECK(cuDeviceGetDevResource(device.device(), &whole, CU_DEV_RESOURCE_TYPE_SM));
  CHECK(cuCtxGetDevResource(device.context(), &of_context, CU_DEV_RESOURCE_TYPE_SM));
  int count = 0;
  CHECK(cuDeviceGetAttribute(&count, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device.device()));
  program.expect(
      whole.sm.smCount == static_cast<unsigned>(count) && of_context.sm.smCount == whole.sm.smCount,
      "device and context have all multiprocessors");
  save(program, whole);
  const unsigned least = whole.sm.minSmPartitionSize;
  unsigned groups = 0;
  CHECK(cuDevSmResourceSplitByCount(nullptr, &groups, &whole, nullptr, 0, least));
  program.expect(groups >= 2 && groups * least <= whole.sm.smCount, "it has two parts or more");
  program.save(&groups, sizeof groups);
  CUdevResource split[2] = {}, rest{};
  groups = 2;
  CHECK(cuDevSmResourceSplitByCount(split, &groups, &whole, &rest, 0, least));
  program.expect(groups == 2, "two parts are made of it");
  for (const CUdevResource& resource : {split[0], split[1], rest}) save(program, resource);
  std::vector<Part> parts(2);
  for (size_t i = 0; i < parts.size(); ++i) {
    Part& part = parts[i];
    CUdevResourceDesc descriptor = nullptr;
    CHECK(cuDevResourceGenerateDesc(&descriptor, &split[i], 1));
    CHECK(cuGreenCtxCreate(&part.green, descriptor, device.device(), CU_GREEN_CTX_DEFAULT_STREAM));
    CHECK(cuCtxFromGreenCtx(&part.context, part.green));
    CHECK(cuGreenCtxStreamCreate(&part.stream, part.green, CU_STREAM_NON_BLOCKING, 0));
    CUdevResource own{}, by_context{};
    CHECK(cuGreenCtxGetDevResource(part.green, &own, CU_DEV_RESOURCE_TYPE_SM));
    CHECK(cuCtxGetDevResource(part.context, &by_context, CU_DEV_RESOURCE_TYPE_SM));
    part.multiprocessors = split[i].sm.smCount;
    program.expect(
        own.sm.smCount == part.multiprocessors && by_context.sm.smCount == part.multiprocessors,
        "a green context has its part");
    save(program, own);
  }
  return parts;
}

void refusals(Program& program, const Device& device) {
  CUdevResource whole{}, other{};
  unsigned groups = 1;
  CHECK(cuDeviceGetDevResource(device.device(), &whole, CU_DEV_RESOURCE_TYPE_SM));
  const CUresult results[] = {
      cuDeviceGetDevResource(device.device(), &other, CU_DEV_RESOURCE_TYPE_INVALID),
      cuDeviceGetDevResource(device.device(), nullptr, CU_DEV_RESOURCE_TYPE_SM),
      cuDeviceGetDevResource(99, &other, CU_DEV_RESOURCE_TYPE_SM),
      cuDevSmResourceSplitByCount(nullptr, nullptr, &whole, nullptr, 0, 1),
  };
  for (const CUresult result : results) program.expect(result != CUDA_SUCCESS, "it is refused");
  CUdevResourceDesc descriptor = nullptr;
  CUgreenCtx green = nullptr;
  CHECK(cuDevResourceGenerateDesc(&descriptor, &whole, 1));
  program.expect(cuGreenCtxCreate(&green, descriptor, device.device(), 0) != CUDA_SUCCESS,
                 "a green context has a default stream");
  CUdevResource untyped{};
  program.expect(
      cuDevSmResourceSplitByCount(&other, &groups, &untyped, nullptr, 0, 1) != CUDA_SUCCESS,
      "what is no resource cannot be divided");
}

std::set<int> places(CUfunction where, CUstream stream) {
  CUdeviceptr out = upload(std::vector<int>(kBlocks, -1));
  void* arguments[] = {&out};
  CHECK(cuLaunchKernel(where, kBlocks, 1, 1, 32, 1, 1, 0, stream, arguments, nullptr));
  CHECK(cuStreamSynchronize(stream));
  const std::vector<int> found = download(out, kBlocks);
  CHECK(cuMemFree(out));
  return {found.begin(), found.end()};
}

// Kernels of two parts run on multiprocessors of their own.
void placement(Program& program, const std::vector<Part>& parts) {
  CUmodule module = nullptr;
  CUfunction where = nullptr;
  CHECK(cuModuleLoadData(&module, kWhere));
  CHECK(cuModuleGetFunction(&where, module, "where"));
  const std::set<int> first = places(where, parts[0].stream);
  const std::set<int> second = places(where, parts[1].stream);
  program.expect(first.size() <= parts[0].multiprocessors &&
                     second.size() <= parts[1].multiprocessors && !first.contains(-1),
                 "blocks run on the part's multiprocessors");
  bool apart = true;
  for (const int place : first) apart = apart && !second.contains(place);
  program.expect(apart, "two parts have none in common");
  CHECK(cuCtxPushCurrent(parts[0].context));
  bool inside = true;
  for (const int place : places(where, nullptr)) inside = inside && !second.contains(place);
  program.expect(inside, "also on its default stream");
  CHECK(cuCtxPopCurrent(nullptr));
  CHECK(cuModuleUnload(module));
}

// A green context that is current: its streams, and all else as in the primary context.
void current(Program& program, const Device& device, const Part& part) {
  CHECK(cuCtxSetCurrent(part.context));
  CUcontext context = nullptr;
  CHECK(cuCtxGetCurrent(&context));
  program.expect(context == part.context && context != device.context(), "it is current");
  CUdevice of = -1;
  CHECK(cuCtxGetDevice(&of));
  program.expect(of == device.device(), "on its device");
  unsigned long long id = 0, primary_id = 0, green_id = 0, implied = 0;
  CHECK(cuCtxGetId(part.context, &id));
  CHECK(cuCtxGetId(device.context(), &primary_id));
  CHECK(cuGreenCtxGetId(part.green, &green_id));
  CHECK(cuGreenCtxGetId(nullptr, &implied));
  program.expect(id != primary_id && green_id == implied, "it has an id of its own");

  CUstream blocking = nullptr;
  CHECK(cuStreamCreate(&blocking, CU_STREAM_DEFAULT));
  for (CUstream stream : {CUstream{nullptr}, blocking, part.stream}) {
    CUgreenCtx green = nullptr;
    CHECK(cuStreamGetGreenCtx(stream, &green));
    CHECK(cuStreamGetCtx(stream, &context));
    program.expect(green == part.green && context == part.context, "its streams name it");
    CHECK(cuStreamGetCtx_v2(stream, &context, &green));
    program.expect(green == part.green && context == device.context(), "and the primary context");
  }
  std::vector<int> values(1000, 3);
  const CUdeviceptr a = upload(values);
  device.launch_step(a, 1000, 5, nullptr);
  device.launch_step(a, 1000, 7, blocking);
  device.launch_step(a, 1000, 11, nullptr);
  CHECK(cuCtxSynchronize());
  CHECK(cuCtxSetCurrent(device.context()));
  program.expect(download(a, 1000) == std::vector<int>(1000, ((3 * 5 + 1) * 7 + 1) * 11 + 1),
                 "default and blocking streams keep their order");
  CUgreenCtx none = part.green;
  CUstream plain = nullptr;
  CHECK(cuStreamCreate(&plain, CU_STREAM_NON_BLOCKING));
  CHECK(cuStreamGetGreenCtx(plain, &none));
  program.expect(none == nullptr, "other streams are of no green context");
  CHECK(cuStreamDestroy(plain));
  CHECK(cuStreamDestroy(blocking));
  CHECK(cuMemFree(a));
}

// Events over all streams of a part: one part is held up, the other is not until it waits for it.
void whole_parts(Program& program, const Device& device, const std::vector<Part>& parts) {
  const CUdeviceptr word = upload({0});
  const CUdeviceptr values = upload(std::vector<int>(1000, 2));
  CUstream writer = nullptr, late = nullptr;
  CHECK(cuStreamCreate(&writer, CU_STREAM_NON_BLOCKING));
  CHECK(cuStreamWaitValue32(parts[0].stream, word, 1, CU_STREAM_WAIT_VALUE_EQ));
  device.launch_step(values, 1000, 3, parts[0].stream);
  const CUevent first = make_event(), second = make_event(), all = make_event(),
                after = make_event();
  CHECK(cuGreenCtxRecordEvent(parts[0].green, first));
  CHECK(cuGreenCtxRecordEvent(parts[1].green, second));
  CHECK(cuCtxRecordEvent(device.context(), all));
  CHECK(cuEventSynchronize(second));
  program.expect(busy(first), "an event of the part that is held up is not done");
  program.expect(busy(all), "nor is one of the primary context");

  CHECK(cuGreenCtxWaitEvent(parts[1].green, first));
  device.launch_step(values, 1000, 5, parts[1].stream);
  CHECK(cuEventRecord(after, parts[1].stream));
  CHECK(cuGreenCtxStreamCreate(&late, parts[1].green, CU_STREAM_NON_BLOCKING, 0));
  CHECK(cuEventRecord(second, late));
  const bool late_waits = busy(second);
  program.save(&late_waits, sizeof late_waits);
  program.expect(busy(after), "the other part waits for it");
  CHECK(cuStreamWriteValue32(writer, word, 1, 0));
  for (const CUevent event : {first, all, after, second}) CHECK(cuEventSynchronize(event));
  const std::vector<int> out = download(values, 1000);
  program.expect(out == std::vector<int>(1000, (2 * 3 + 1) * 5 + 1), "in this order");
  program.save(out);

  CHECK(cuCtxRecordEvent(parts[1].context, second));
  CHECK(cuCtxWaitEvent(device.context(), second));
  CHECK(cuCtxWaitEvent(parts[0].context, second));
  CHECK(cuCtxSynchronize());
  CUcontext other = nullptr;
  CHECK(cuCtxCreate(&other, nullptr, 0, device.device()));
  const CUevent foreign = make_event();
  program.expect(cuGreenCtxRecordEvent(parts[0].green, foreign) == CUDA_ERROR_INVALID_HANDLE,
                 "an event of another context is not recorded (400)");
  CHECK(cuCtxDestroy(other));
  CHECK(cuCtxSetCurrent(device.context()));
  for (const CUevent event : {first, second, all, after}) CHECK(cuEventDestroy(event));
  CHECK(cuStreamDestroy(late));
  CHECK(cuStreamDestroy(writer));
  CHECK(cuMemFree(values));
  CHECK(cuMemFree(word));
}

void captures(Program& program, const Device& device, const Part& part) {
  const CUdeviceptr values = upload(std::vector<int>(100, 1));
  CUgraph graph = nullptr;
  CUgraphExec executable = nullptr;
  CHECK(cuStreamBeginCapture(part.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  device.launch_step(values, 100, 4, part.stream);
  CHECK(cuStreamEndCapture(part.stream, &graph));
  CHECK(cuGraphInstantiate(&executable, graph, 0));
  CHECK(cuGraphLaunch(executable, part.stream));
  CHECK(cuStreamSynchronize(part.stream));
  program.expect(download(values, 100) == std::vector<int>(100, 5), "a captured part is launched");
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));

  const CUevent event = make_event();
  CHECK(cuStreamBeginCapture(part.stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  program.expect(cuGreenCtxRecordEvent(part.green, event) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
                 "a part that captures is not recorded (900)");
  graph = nullptr;
  program.expect(cuStreamEndCapture(part.stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
                 "and its capture is lost (901)");
  CHECK(cuEventDestroy(event));
  CHECK(cuMemFree(values));
}

// The primary context lives as long as a green one; its streams end with it.
void ends(Program& program, const Device& device, const std::vector<Part>& parts) {
  CHECK(cuDevicePrimaryCtxRelease(device.device()));
  unsigned flags = 0;
  int active = 0;
  CHECK(cuDevicePrimaryCtxGetState(device.device(), &flags, &active));
  program.expect(active == 1, "green contexts retain the primary one");
  CUcontext again = nullptr;
  CHECK(cuDevicePrimaryCtxRetain(&again, device.device()));
  program.expect(again == device.context(), "which is still the same");
  CHECK(cuStreamDestroy(parts[0].stream));
  for (const Part& part : parts) CHECK(cuGreenCtxDestroy(part.green));
  program.expect(cuStreamQuery(parts[1].stream) == CUDA_ERROR_CONTEXT_IS_DESTROYED,
                 "a stream that was left is of no use (709)");
  program.expect(cuStreamDestroy(parts[1].stream) == CUDA_ERROR_CONTEXT_IS_DESTROYED,
                 "and cannot be destroyed (709)");
  const CUdeviceptr values = upload({1, 2, 3});
  device.launch_step(values, 3, 2, nullptr);
  program.save(download(values, 3));
  CHECK(cuMemFree(values));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("greenContexts", argc, argv);
  const Device device;
  refusals(program, device);
  const std::vector<Part> parts = divide(program, device);
  placement(program, parts);
  current(program, device, parts[0]);
  whole_parts(program, device, parts);
  captures(program, device, parts[0]);
  CUexecAffinityParam affinity{};
  const CUresult result = cuCtxGetExecAffinity(&affinity, CU_EXEC_AFFINITY_TYPE_SM_COUNT);
  program.save(&result, sizeof result);
  ends(program, device, parts);
  return program.finish();
}
