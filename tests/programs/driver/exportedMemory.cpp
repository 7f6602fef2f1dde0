// Asks for a descriptor of device memory, which only the machine of the device can give.
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include "driver.hpp"

int main(int argc, char** argv) {
  Program program("exportedMemory", argc, argv);
  const Device device;
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = device.device();
  properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  CUmemGenericAllocationHandle memory = 0;
  CHECK(cuMemCreate(&memory, 2 << 20, &properties, 0));
  int fd = -1;
  CHECK(cuMemExportToShareableHandle(&fd, memory, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
  program.expect(fd >= 0, "an exported handle is a descriptor");
  close(fd);
  CHECK(cuMemRelease(memory));
  return program.finish();
}
