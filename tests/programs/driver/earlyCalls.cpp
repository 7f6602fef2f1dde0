// Calls of early CUDA versions that drivers still have: launches in steps, counted contexts, one
// launch over several devices.
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"

namespace {

// step(v, n, factor) has its parameters at bytes 0, 8 and 12.
void launches(Program& program) {
  CUmodule module = nullptr;
  CUfunction step = nullptr;
  CHECK(cuModuleLoadData(&module, kKernels));
  CHECK(cuModuleGetFunction(&step, module, "step"));
  CUdeviceptr values = upload(std::vector<int>(100, 2));
  CUstream stream = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(cuFuncSetBlockShape(step, 10, 1, 1));
  CHECK(cuFuncSetSharedSize(step, 0));
  CHECK(cuParamSetv(step, 0, &values, sizeof values));
  CHECK(cuParamSeti(step, 8, 90));
  CHECK(cuParamSeti(step, 12, 3));
  CHECK(cuParamSetSize(step, 16));
  CHECK(cuLaunchGrid(step, 9, 1));  // the first 90
  CHECK(cuStreamSynchronize(nullptr));
  CHECK(cuParamSetf(step, 12, 7e-45F));  // the bits of 5
  CHECK(cuLaunchGridAsync(step, 5, 1, stream));
  CHECK(cuStreamSynchronize(stream));  // the first 50
  CHECK(cuLaunch(step));               // the first 10
  CHECK(cuStreamSynchronize(nullptr));
  const std::vector<int> out = download(values, 100);
  program.expect(out[0] == stepped(2 * 3 + 1, 5, 2) && out[9] == out[0] &&
                     out[10] == stepped(2 * 3 + 1, 5, 1) && out[49] == out[10] && out[50] == 7 &&
                     out[89] == 7 && out[90] == 2,
                 "shape and arguments stay with the kernel");
  program.save(out);
  program.expect(cuFuncSetBlockShape(step, 0, 1, 1) == CUDA_ERROR_INVALID_VALUE,
                 "a block has threads");
  CHECK(cuStreamDestroy(stream));
  CHECK(cuMemFree(values));
  CHECK(cuModuleUnload(module));
}

void counted_contexts(Program& program, const Device& device) {
  CUcontext made = nullptr, attached = nullptr;
  unsigned version = 0;
  CHECK(cuCtxCreate(&made, nullptr, 0, device.device()));
  CHECK(cuCtxAttach(&attached, 0));
  program.expect(attached == made, "the current context is attached");
  CHECK(cuCtxDetach(made));
  CHECK(cuCtxGetApiVersion(made, &version));
  program.expect(version != 0, "it stays while somebody uses it");
  CHECK(cuCtxDetach(made));
  CHECK(cuCtxSetCurrent(device.context()));
}

// One kernel on every device, each after what is on all streams.
void every_device(Program& program, const Device& first) {
  int count = 0;
  CHECK(cuDeviceGetCount(&count));
  std::vector<CUDA_LAUNCH_PARAMS> launches;
  std::vector<CUcontext> contexts;
  std::vector<CUdeviceptr> memory(static_cast<size_t>(count));
  std::vector<std::vector<void*>> arguments(static_cast<size_t>(count));
  int length = 1000, factor = 4;
  for (int i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(i);
    CUcontext context = nullptr;
    CUmodule module = nullptr;
    CUDA_LAUNCH_PARAMS launch{};
    CHECK(cuDevicePrimaryCtxRetain(&context, i));
    CHECK(cuCtxSetCurrent(context));
    CHECK(cuModuleLoadData(&module, kKernels));
    CHECK(cuModuleGetFunction(&launch.function, module, "step"));
    CHECK(cuStreamCreate(&launch.hStream, CU_STREAM_NON_BLOCKING));
    memory[at] = upload(std::vector<int>(1000, i + 1));
    arguments[at] = {&memory[at], &length, &factor};
    launch.gridDimX = 8;
    launch.blockDimX = 125;
    launch.gridDimY = launch.gridDimZ = launch.blockDimY = launch.blockDimZ = 1;
    launch.kernelParams = arguments[at].data();
    launches.push_back(launch);
    contexts.push_back(context);
  }
  const auto devices = static_cast<unsigned>(count);
  CHECK(cuCtxSetCurrent(first.context()));
  CHECK(cuLaunchCooperativeKernelMultiDevice(launches.data(), devices, 0));
  CHECK(cuLaunchCooperativeKernelMultiDevice(
      launches.data(), devices, CUDA_COOPERATIVE_LAUNCH_MULTI_DEVICE_NO_PRE_LAUNCH_SYNC));
  CUcontext current = nullptr;
  CHECK(cuCtxGetCurrent(&current));
  program.expect(current == first.context(), "the current context stays");
  for (int i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(i);
    CHECK(cuCtxSetCurrent(contexts[at]));
    CHECK(cuStreamSynchronize(launches[at].hStream));
    program.expect(download(memory[at], 1000) == std::vector<int>(1000, stepped(i + 1, 4, 2)),
                   "every device has done its part");
    CHECK(cuMemFree(memory[at]));
    CHECK(cuStreamDestroy(launches[at].hStream));
    CHECK(cuDevicePrimaryCtxRelease(i));
  }
  CHECK(cuCtxSetCurrent(first.context()));
  launches[0].hStream = nullptr;
  program.expect(cuLaunchCooperativeKernelMultiDevice(launches.data(), 1, 0) != CUDA_SUCCESS,
                 "the default stream is refused");
}

void links(Program& program) {
  const CUatomicOperation operation = CU_ATOMIC_OPERATION_CAS;
  unsigned capability = 0;
  program.expect(cuDeviceGetP2PAtomicCapabilities(&capability, &operation, 1, 0, 0) ==
                     CUDA_ERROR_INVALID_DEVICE,
                 "a device has no link to itself (101)");
}

// A pointer to a function that is valid on every device, where there are such.
void unified_functions(Program& program, CUdevice device) {
  int unified = -1;
  CHECK(cuDeviceGetAttribute(&unified, CU_DEVICE_ATTRIBUTE_UNIFIED_FUNCTION_POINTERS, device));
  CUlibrary library = nullptr;
  CHECK(cuLibraryLoadData(&library, kKernels, nullptr, nullptr, 0, nullptr, nullptr, 0));
  void* function = nullptr;
  const int result = cuLibraryGetUnifiedFunction(&function, library, "no_such_function");
  program.expect(result != CUDA_SUCCESS, "a function that is not there has no pointer");
  program.save(&unified, sizeof unified);
  program.save(&result, sizeof result);
  CHECK(cuLibraryUnload(library));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("earlyCalls", argc, argv);
  const Device device;
  launches(program);
  counted_contexts(program, device);
  every_device(program, device);
  links(program);
  unified_functions(program, device.device());
  return program.finish();
}
