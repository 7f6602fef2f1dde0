// Calls a function that is not supported, twice, and goes on.
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"

int main(int argc, char** argv) {
  Program program("refusedFunction", argc, argv);
  const Device device;
  CUmulticastObjectProp properties{};
  properties.numDevices = 2;
  properties.size = 2 << 20;
  size_t bytes = 0;
  for (int i = 0; i < 2; ++i) {
    program.expect(
        cuMulticastGetGranularity(&bytes, &properties, CU_MULTICAST_GRANULARITY_MINIMUM) ==
            CUDA_ERROR_NOT_SUPPORTED,
        "what is not supported is refused by that name");
  }
  const CUdeviceptr values = upload(std::vector<int>(1000, 4));
  device.launch_step(values, 1000, 3, nullptr);
  program.expect(download(values, 1000) == std::vector<int>(1000, 13), "the program goes on");
  CHECK(cuMemFree(values));
  return program.finish();
}
