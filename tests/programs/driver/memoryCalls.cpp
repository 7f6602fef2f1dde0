// The plain calls on memory, each in every form: fills, generic and peer copies, pinned memory,
// what pointers say. SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"

namespace {

constexpr size_t kPitch = 256;
constexpr size_t kHeight = 20;

std::vector<uint8_t> bytes_at(CUdeviceptr address, size_t count) {
  std::vector<uint8_t> bytes(count);
  CHECK(cuMemcpyDtoH(bytes.data(), address, count));
  return bytes;
}

// Whether each row holds `width` values and then what was there before.
template <typename T>
bool filled(const std::vector<uint8_t>& bytes, T value, size_t width) {
  for (size_t row = 0; row < kHeight; ++row) {
    const uint8_t* at = bytes.data() + row * kPitch;
    for (size_t i = 0; i < width; ++i) {
      T found{};
      std::memcpy(&found, at + i * sizeof(T), sizeof(T));
      if (found != value) return false;
    }
    for (size_t i = width * sizeof(T); i < kPitch; ++i) {
      if (at[i] != 0xee) return false;
    }
  }
  return true;
}

void fills(Program& program, CUstream stream) {
  const CUdeviceptr area = allocate(kPitch * kHeight);
  const auto clear = [&] { CHECK(cuMemsetD8(area, 0xee, kPitch * kHeight)); };
  const auto look = [&] {
    CHECK(cuStreamSynchronize(stream));
    CHECK(cuCtxSynchronize());
    return bytes_at(area, kPitch * kHeight);
  };
  clear();
  CHECK(cuMemsetD2D8(area, kPitch, 0x12, 101, kHeight));
  program.expect(filled<uint8_t>(look(), 0x12, 101), "rows of bytes are set");
  clear();
  CHECK(cuMemsetD2D16(area, kPitch, 0x1234, 77, kHeight));
  program.expect(filled<uint16_t>(look(), 0x1234, 77), "rows of 16 bits are set");
  clear();
  CHECK(cuMemsetD2D32(area, kPitch, 0x12345678, 63, kHeight));
  program.expect(filled<uint32_t>(look(), 0x12345678, 63), "rows of 32 bits are set");
  clear();
  CHECK(cuCtxSynchronize());
  CHECK(cuMemsetD2D8Async(area, kPitch, 0x21, 256, kHeight, stream));
  program.expect(filled<uint8_t>(look(), 0x21, 256), "rows without gaps are set in a stream");
  clear();
  CHECK(cuCtxSynchronize());
  CHECK(cuMemsetD2D16Async(area, kPitch, 0x4321, 5, kHeight, stream));
  program.expect(filled<uint16_t>(look(), 0x4321, 5), "rows of 16 bits are set in a stream");
  clear();
  CHECK(cuCtxSynchronize());
  CHECK(cuMemsetD2D32Async(area, kPitch, 0x87654321, 9, kHeight, stream));
  program.expect(filled<uint32_t>(look(), 0x87654321, 9), "rows of 32 bits are set in a stream");
  CHECK(cuMemsetD16(area, 0x0102, 10));
  CHECK(cuMemsetD16Async(area + 20, 0x0304, 10, stream));
  CHECK(cuMemsetD32Async(area + 40, 0x05060708, 10, stream));
  program.save(look());
  program.expect(cuMemsetD32(area + 2, 1, 1) == CUDA_ERROR_INVALID_VALUE, "values are aligned");
  program.expect(cuMemsetD2D8(area, 100, 1, 101, 2) == CUDA_ERROR_INVALID_VALUE,
                 "rows do not overlap");
  CHECK(cuMemFree(area));
}

void copies(Program& program, const Device& device, CUstream stream) {
  std::vector<int> values(30000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int>(i * 7);
  const size_t bytes = values.size() * sizeof(int);
  const CUdeviceptr first = upload(values);
  const CUdeviceptr second = allocate(bytes);
  CHECK(cuMemcpyPeer(second, device.context(), first, device.context(), bytes / 2));
  CHECK(cuMemcpyPeerAsync(second + bytes / 2, device.context(), first + bytes / 2, device.context(),
                          bytes / 2, stream));
  CHECK(cuStreamSynchronize(stream));
  CHECK(cuCtxSynchronize());
  program.expect(download(second, values.size()) == values, "a peer's memory is copied");
  std::vector<int> back(values.size());
  CHECK(cuMemcpyAsync(reinterpret_cast<CUdeviceptr>(back.data()), second, bytes, stream));
  CHECK(cuStreamSynchronize(stream));
  program.expect(back == values, "a copy finds out what its ends are");
  CHECK(cuMemFree(first));
  CHECK(cuMemFree(second));
}

void host_memory(Program& program) {
  void* memory = nullptr;
  CHECK(cuMemAllocHost(&memory, 5000));
  unsigned flags = 99;
  CHECK(cuMemHostGetFlags(&flags, memory));
  CUmemorytype type{};
  CUdeviceptr device = 0;
  CUdeviceptr* out = &device;
  void* data[] = {&type, out};
  CUpointer_attribute which[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                 CU_POINTER_ATTRIBUTE_DEVICE_POINTER};
  const auto address = reinterpret_cast<CUdeviceptr>(memory);
  CHECK(cuPointerGetAttributes(2, which, data, address + 16));
  program.expect(type == CU_MEMORYTYPE_HOST && device == address + 16,
                 "pinned memory is the device's as well");
  std::memset(memory, 3, 5000);
  CHECK(cuMemFreeHost(memory));
  program.expect(cuMemFreeHost(memory) == CUDA_ERROR_INVALID_VALUE, "memory is freed once");

  std::vector<uint8_t> own(10000);
  CHECK(cuMemHostRegister(own.data(), own.size(), 0));
  program.expect(
      cuMemHostRegister(own.data(), own.size(), 0) == CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED,
      "memory is registered once");
  CHECK(cuMemHostUnregister(own.data()));
  program.expect(cuMemHostUnregister(own.data()) == CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED,
                 "and given up once");
}

void pointers(Program& program, const Device& device) {
  const CUdeviceptr memory = allocate(3000);
  unsigned yes = 1;
  CHECK(cuPointerSetAttribute(&yes, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, memory));
  CUdeviceptr base = 0;
  size_t size = 0;
  CHECK(cuMemGetAddressRange(&base, &size, memory + 2999));
  program.expect(base == memory && size == 3000, "an address knows its range");
  int ordinal = -1;
  CUcontext context = nullptr;
  CHECK(cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, memory + 7));
  CHECK(cuPointerGetAttribute(&context, CU_POINTER_ATTRIBUTE_CONTEXT, memory + 7));
  program.expect(ordinal == device.device() && context == device.context(),
                 "an address knows its device and context");
  program.expect(cuMemGetAddressRange(&base, &size, 64) == CUDA_ERROR_NOT_FOUND,
                 "no range is at an address of nothing");
  CHECK(cuMemFree(memory));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("memoryCalls", argc, argv);
  const Device device;
  CUstream stream;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  fills(program, stream);
  copies(program, device, stream);
  host_memory(program);
  pointers(program, device);
  CHECK(cuStreamDestroy(stream));
  return program.finish();
}
