// Copies between two devices of one server: linear, pitched, from arrays and from mapped memory.
// SPDX-License-Identifier: Apache-2.0
#include "peers.hpp"

namespace {

constexpr int kCount = 50000;
constexpr size_t kBytes = kCount * sizeof(int);

CUdeviceptr allocate_on(const Side& side) {
  side.enter();
  return allocate(kBytes);
}

std::vector<int> counted(int first) {
  std::vector<int> values(kCount);
  for (int i = 0; i < kCount; ++i) values[static_cast<size_t>(i)] = first + i;
  return values;
}

// Memory of the second device that the program maps itself, for both.
class Mapped {
 public:
  Mapped(const Side& owner) {
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = owner.device;
    CHECK(cuMemGetAllocationGranularity(&bytes_, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    CHECK(cuMemAddressReserve(&address, bytes_, 0, 0, 0));
    CUmemGenericAllocationHandle memory = 0;
    CHECK(cuMemCreate(&memory, bytes_, &properties, 0));
    CHECK(cuMemMap(address, bytes_, 0, memory, 0));
    CHECK(cuMemRelease(memory));
    CUmemAccessDesc access{};
    access.location = properties.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    CHECK(cuMemSetAccess(address, bytes_, &access, 1));
  }
  ~Mapped() {
    CHECK(cuMemUnmap(address, bytes_));
    CHECK(cuMemAddressFree(address, bytes_));
  }
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;

  CUdeviceptr address = 0;

 private:
  size_t bytes_ = 0;
};

void linear(Program& program, const Side& one, const Side& two) {
  const std::vector<int> values = counted(100);
  const CUdeviceptr first = allocate_on(one);
  const CUdeviceptr second = allocate_on(two);
  one.enter();
  CHECK(cuMemcpyHtoD(first, values.data(), kBytes));
  CHECK(cuMemcpyPeer(second, two.context, first, one.context, kBytes));
  two.enter();
  CHECK(cuCtxSynchronize());
  program.expect(download(second, kCount) == values, "a copy between peers arrives");
  CHECK(cuMemsetD32(second, 5, kCount / 2));
  CHECK(cuMemcpyDtoD(first, second, kBytes));
  CHECK(cuCtxSynchronize());
  one.enter();
  const std::vector<int> back = download(first, kCount);
  program.expect(back[0] == 5 && back[kCount / 2] == values[kCount / 2], "and goes the other way");
  program.save(back);

  const Mapped mapped(two);
  CHECK(cuMemcpyPeer(mapped.address, two.context, first, one.context, kBytes));
  CHECK(cuCtxSynchronize());
  two.enter();
  program.expect(download(mapped.address, kCount) == back, "mapped memory takes part");
  int ordinal = -1;
  CHECK(cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, mapped.address));
  program.expect(ordinal == two.device, "mapped memory is where it was made");
  CHECK(cuMemFree(second));
  one.enter();
  CHECK(cuMemFree(first));
}

void pitched(Program& program, const Side& one, const Side& two) {
  const std::vector<int> values = counted(7);
  two.enter();
  CUDA_ARRAY3D_DESCRIPTOR descriptor{};
  descriptor.Width = 100;
  descriptor.Height = 50;
  descriptor.Format = CU_AD_FORMAT_SIGNED_INT32;
  descriptor.NumChannels = 1;
  CUarray array = nullptr;
  CHECK(cuArray3DCreate(&array, &descriptor));
  const CUdeviceptr source = allocate_on(one);
  CHECK(cuMemcpyHtoD(source, values.data(), kBytes));
  CUDA_MEMCPY3D_PEER copy{};
  copy.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.srcDevice = source;
  copy.srcContext = one.context;
  copy.srcPitch = 500;
  copy.dstMemoryType = CU_MEMORYTYPE_ARRAY;
  copy.dstArray = array;
  copy.dstContext = two.context;
  copy.WidthInBytes = 400;
  copy.Height = 50;
  copy.Depth = 1;
  CHECK(cuMemcpy3DPeer(&copy));
  CHECK(cuCtxSynchronize());
  two.enter();
  std::vector<int> back(5000);
  CUDA_MEMCPY2D out{};
  out.srcMemoryType = CU_MEMORYTYPE_ARRAY;
  out.srcArray = array;
  out.dstMemoryType = CU_MEMORYTYPE_HOST;
  out.dstHost = back.data();
  out.dstPitch = 400;
  out.WidthInBytes = 400;
  out.Height = 50;
  CHECK(cuMemcpy2D(&out));
  bool right = true;
  for (size_t i = 0; i < back.size(); ++i) {
    right = right && back[i] == values[i / 100 * 125 + i % 100];
  }
  program.expect(right, "rows of one device go into an array of another");
  program.save(back);
  CHECK(cuArrayDestroy(array));
  one.enter();
  CHECK(cuMemFree(source));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("peerMemory", argc, argv);
  initialise_two_devices(program);
  const Side one(0);
  const Side two(1);
  linear(program, one, two);
  pitched(program, one, two);
  return program.finish();
}
