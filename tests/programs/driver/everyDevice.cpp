// Computes on every device of the session at once, whichever servers they are on.
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"

namespace {

constexpr int count = 4096;

struct Part {
  CUcontext context = nullptr;
  CUdeviceptr values = 0;
};

Part start(CUdevice device) {
  Part part;
  CHECK(cuDevicePrimaryCtxRetain(&part.context, device));
  CHECK(cuCtxSetCurrent(part.context));
  CUmodule module = nullptr;
  CUfunction step = nullptr;
  CHECK(cuModuleLoadData(&module, kKernels));
  CHECK(cuModuleGetFunction(&step, module, "step"));
  std::vector<int> values(count);
  for (int i = 0; i < count; ++i) values[i] = device * count + i;
  part.values = upload(values);
  int n = count, factor = 3;
  void* parameters[] = {&part.values, &n, &factor};
  CHECK(cuLaunchKernel(step, count / 256, 1, 1, 256, 1, 1, 0, nullptr, parameters, nullptr));
  return part;
}

}  // namespace

int main(int argc, char** argv) {
  Program program("everyDevice", argc, argv);
  CHECK(cuInit(0));
  int devices = 0;
  CHECK(cuDeviceGetCount(&devices));
  std::vector<Part> parts;
  for (CUdevice device = 0; device < devices; ++device) parts.push_back(start(device));
  bool right = true;
  for (int device = 0; device < devices; ++device) {
    CHECK(cuCtxSetCurrent(parts[device].context));
    const std::vector<int> values = download(parts[device].values, count);
    for (int i = 0; i < count; ++i) right = right && values[i] == 3 * (device * count + i) + 1;
    program.save(values);
    CHECK(cuMemFree(parts[device].values));
  }
  program.expect(right, "every device computed its part");
  std::printf("devices: %d\n", devices);
  return program.finish();
}
