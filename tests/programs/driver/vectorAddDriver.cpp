// Adds two vectors with the driver API and PTX that is part of the program.
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"

int main(int argc, char** argv) {
  Program program("vectorAddDriver", argc, argv);
  const Device device;
  constexpr int kCount = 10007;
  std::vector<int> a(kCount);
  std::vector<int> b(kCount);
  for (int i = 0; i < kCount; ++i) {
    a[i] = i;
    b[i] = 3 * i - 20000;
  }
  const CUdeviceptr device_a = upload(a);
  const CUdeviceptr device_b = upload(b);
  const CUdeviceptr device_c = allocate(kCount * sizeof(int));
  device.launch_add(device_a, device_b, device_c, kCount, nullptr);
  const std::vector<int> c = download(device_c, kCount);
  bool right = true;
  for (int i = 0; i < kCount; ++i) right = right && c[i] == a[i] + b[i];
  program.expect(right, "every element is the sum");

  char name[128] = "";
  CHECK(cuDeviceGetName(name, sizeof(name), device.device()));
  std::printf("on %s\n", name);
  CUdeviceptr base = 0;
  size_t size_bytes = 0;
  CHECK(cuMemGetAddressRange(&base, &size_bytes, device_c + 100));
  program.expect(base == device_c && size_bytes == kCount * sizeof(int), "the range is known");
  CUmodule module = nullptr;
  program.expect(
      cuModuleLoadData(&module, ".version 7.0\n.target sm_70\n.address_size 64\nrubbish") !=
          CUDA_SUCCESS,
      "what is no PTX is refused");
  program.expect(cuMemFree(device_c + 4) == CUDA_ERROR_INVALID_VALUE,
                 "an address inside of an allocation cannot be freed");
  CHECK(cuMemFree(device_a));
  CHECK(cuMemFree(device_b));
  CHECK(cuMemFree(device_c));
  program.save(c);
  return program.finish();
}
