// Copies in two and three dimensions between host and device memory, small and large, in one piece
// and in batches.
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <functional>

#include "driver.hpp"

namespace {

struct Shape {
  size_t width, height, depth;  // bytes, rows, slices
};

// Pitched memory: `rows` rows of `pitch` bytes in each slice.
struct Layout {
  size_t pitch, rows;
  size_t x, y, z;
  size_t bytes(const Shape& shape) const { return pitch * rows * (shape.depth + z); }
};

using Bytes = std::vector<uint8_t>;

Bytes numbered(size_t bytes, uint32_t seed) {
  Sequence sequence(seed);
  Bytes values(bytes);
  for (uint8_t& value : values) value = static_cast<uint8_t>(sequence.next());
  return values;
}

// What the copy means.
void copy_by_hand(Bytes* to, const Layout& to_layout, const Bytes& from, const Layout& from_layout,
                  const Shape& shape) {
  for (size_t z = 0; z < shape.depth; ++z) {
    for (size_t y = 0; y < shape.height; ++y) {
      const auto at = [&](const Layout& layout) {
        return ((z + layout.z) * layout.rows + y + layout.y) * layout.pitch + layout.x;
      };
      std::memcpy(to->data() + at(to_layout), from.data() + at(from_layout), shape.width);
    }
  }
}

CUdeviceptr device_copy(const Bytes& bytes) { return upload(bytes.data(), bytes.size()); }

Bytes host_copy(CUdeviceptr address, size_t bytes) {
  Bytes values(bytes);
  CHECK(cuMemcpyDtoH(values.data(), address, bytes));
  return values;
}

CUDA_MEMCPY3D describe(const Layout& to, const Layout& from, const Shape& shape) {
  CUDA_MEMCPY3D copy{};
  copy.srcPitch = from.pitch;
  copy.srcHeight = from.rows;
  copy.srcXInBytes = from.x;
  copy.srcY = from.y;
  copy.srcZ = from.z;
  copy.dstPitch = to.pitch;
  copy.dstHeight = to.rows;
  copy.dstXInBytes = to.x;
  copy.dstY = to.y;
  copy.dstZ = to.z;
  copy.WidthInBytes = shape.width;
  copy.Height = shape.height;
  copy.Depth = shape.depth;
  return copy;
}

using Run = std::function<void(const CUDA_MEMCPY3D&)>;

// One shape between every pair of places, run as `run` does.
void all_pairs(Program& program, const Shape& shape, const Layout& to, const Layout& from,
               const char* what, const Run& run) {
  const Bytes source = numbered(from.bytes(shape), 3);
  const Bytes before = numbered(to.bytes(shape), 5);
  Bytes expected = before;
  copy_by_hand(&expected, to, source, from, shape);
  const CUdeviceptr device_source = device_copy(source);
  for (const bool from_device : {false, true}) {
    for (const bool to_device : {false, true}) {
      for (const bool unified : {false, true}) {
        Bytes host_target = before;
        const CUdeviceptr device_target = device_copy(before);
        CUDA_MEMCPY3D copy = describe(to, from, shape);
        copy.srcMemoryType = from_device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
        copy.srcHost = source.data();
        copy.srcDevice = device_source;
        copy.dstMemoryType = to_device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
        copy.dstHost = host_target.data();
        copy.dstDevice = device_target;
        if (unified) {
          copy.srcMemoryType = copy.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
          if (!from_device) copy.srcDevice = reinterpret_cast<CUdeviceptr>(source.data());
          if (!to_device) copy.dstDevice = reinterpret_cast<CUdeviceptr>(host_target.data());
        }
        run(copy);
        CHECK(cuCtxSynchronize());
        const Bytes actual = to_device ? host_copy(device_target, before.size()) : host_target;
        program.expect(actual == expected, what);
        CHECK(cuMemFree(device_target));
      }
    }
  }
  program.save(expected.data(), std::min<size_t>(expected.size(), 4096));
  CHECK(cuMemFree(device_source));
}

CUDA_MEMCPY2D narrow(const CUDA_MEMCPY3D& wide) {
  CUDA_MEMCPY2D copy{};
  copy.srcMemoryType = wide.srcMemoryType;
  copy.srcHost = wide.srcHost;
  copy.srcDevice = wide.srcDevice;
  copy.srcPitch = wide.srcPitch;
  copy.srcXInBytes = wide.srcXInBytes;
  copy.srcY = wide.srcY;
  copy.dstMemoryType = wide.dstMemoryType;
  copy.dstHost = wide.dstHost;
  copy.dstDevice = wide.dstDevice;
  copy.dstPitch = wide.dstPitch;
  copy.dstXInBytes = wide.dstXInBytes;
  copy.dstY = wide.dstY;
  copy.WidthInBytes = wide.WidthInBytes;
  copy.Height = wide.Height;
  return copy;
}

CUDA_MEMCPY3D_PEER with_peers(const CUDA_MEMCPY3D& plain, CUcontext context) {
  CUDA_MEMCPY3D_PEER copy{};
  copy.srcMemoryType = plain.srcMemoryType;
  copy.srcHost = plain.srcHost;
  copy.srcDevice = plain.srcDevice;
  copy.srcPitch = plain.srcPitch;
  copy.srcHeight = plain.srcHeight;
  copy.srcXInBytes = plain.srcXInBytes;
  copy.srcY = plain.srcY;
  copy.srcZ = plain.srcZ;
  copy.srcContext = context;
  copy.dstMemoryType = plain.dstMemoryType;
  copy.dstHost = plain.dstHost;
  copy.dstDevice = plain.dstDevice;
  copy.dstPitch = plain.dstPitch;
  copy.dstHeight = plain.dstHeight;
  copy.dstXInBytes = plain.dstXInBytes;
  copy.dstY = plain.dstY;
  copy.dstZ = plain.dstZ;
  copy.dstContext = context;
  copy.WidthInBytes = plain.WidthInBytes;
  copy.Height = plain.Height;
  copy.Depth = plain.Depth;
  return copy;
}

void batches(Program& program, CUstream stream) {
  const Bytes first = numbered(5000, 11);
  const Bytes second = numbered(70000, 12);
  const CUdeviceptr device = allocate(80000);
  Bytes back(75000);
  CUmemcpyAttributes order{};
  order.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  size_t index = 0;
  std::array<CUdeviceptr, 2> to{device, device + 5000};
  std::array<CUdeviceptr, 2> from{reinterpret_cast<CUdeviceptr>(first.data()),
                                  reinterpret_cast<CUdeviceptr>(second.data())};
  std::array<size_t, 2> sizes{first.size(), second.size()};
  CHECK(cuMemcpyBatchAsync(to.data(), from.data(), sizes.data(), 2, &order, &index, 1, stream));
  CHECK(cuStreamSynchronize(stream));
  CHECK(cuMemcpyDtoH(back.data(), device, back.size()));
  program.expect(std::equal(first.begin(), first.end(), back.begin()) &&
                     std::equal(second.begin(), second.end(), back.begin() + 5000),
                 "a batch copies all of it");

  CUDA_MEMCPY3D_BATCH_OP operation{};
  operation.src.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
  operation.src.op.ptr.ptr = device;
  operation.src.op.ptr.rowLength = 100;
  operation.src.op.ptr.layerHeight = 10;
  operation.dst.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
  operation.dst.op.ptr.ptr = device + 40000;
  operation.dst.op.ptr.rowLength = 120;
  operation.dst.op.ptr.layerHeight = 12;
  operation.extent = {90, 8, 3};
  operation.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  Bytes expected = host_copy(device, 80000);
  const Shape shape{90, 8, 3};
  Bytes part(expected.begin() + 40000, expected.end());
  copy_by_hand(&part, {120, 12, 0, 0, 0}, expected, {100, 10, 0, 0, 0}, shape);
  CHECK(cuMemcpy3DBatchAsync(1, &operation, 0, stream));
  CHECK(cuStreamSynchronize(stream));
  program.expect(host_copy(device + 40000, 40000) == part, "a batch copies volumes");
  program.expect(cuMemcpyBatchAsync(to.data(), from.data(), sizes.data(), 0, &order, &index, 1,
                                    stream) == CUDA_ERROR_INVALID_VALUE,
                 "an empty batch is refused");
  program.save(part);
  CHECK(cuMemFree(device));
}

void refusals(Program& program) {
  const CUdeviceptr device = allocate(1000);
  Bytes host(4000);
  CUDA_MEMCPY3D copy = describe({100, 10, 0, 0, 0}, {100, 10, 0, 0, 0}, {90, 10, 2});
  copy.srcMemoryType = CU_MEMORYTYPE_HOST;
  copy.srcHost = host.data();
  copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.dstDevice = device;
  program.expect(cuMemcpy3D(&copy) == CUDA_ERROR_INVALID_VALUE, "a copy stays in its memory");
  copy.Depth = 1;
  copy.dstPitch = 80;
  program.expect(cuMemcpy3D(&copy) == CUDA_ERROR_INVALID_VALUE, "rows do not overlap");
  copy.dstPitch = 100;
  copy.Height = 0;
  program.expect(cuMemcpy3D(&copy) == CUDA_SUCCESS, "nothing is copied of nothing");
  CHECK(cuMemFree(device));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("volumeCopies", argc, argv);
  const Device device;
  CUstream stream;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  const Run plain = [](const CUDA_MEMCPY3D& copy) { CHECK(cuMemcpy3D(&copy)); };
  const Run later = [&](const CUDA_MEMCPY3D& copy) {
    CHECK(cuMemcpy3DAsync(&copy, stream));
    CHECK(cuStreamSynchronize(stream));
  };
  const Run flat = [](const CUDA_MEMCPY3D& copy) {
    const CUDA_MEMCPY2D two = narrow(copy);
    CHECK(cuMemcpy2D(&two));
  };
  const Run unaligned = [](const CUDA_MEMCPY3D& copy) {
    const CUDA_MEMCPY2D two = narrow(copy);
    CHECK(cuMemcpy2DUnaligned(&two));
  };
  const Run flat_later = [&](const CUDA_MEMCPY3D& copy) {
    const CUDA_MEMCPY2D two = narrow(copy);
    CHECK(cuMemcpy2DAsync(&two, stream));
    CHECK(cuStreamSynchronize(stream));
  };
  const Run peers = [&](const CUDA_MEMCPY3D& copy) {
    const CUDA_MEMCPY3D_PEER peer = with_peers(copy, device.context());
    CHECK(cuMemcpy3DPeer(&peer));
  };
  const Run peers_later = [&](const CUDA_MEMCPY3D& copy) {
    const CUDA_MEMCPY3D_PEER peer = with_peers(copy, device.context());
    CHECK(cuMemcpy3DPeerAsync(&peer, stream));
    CHECK(cuStreamSynchronize(stream));
  };

  const Layout tight{50, 7, 0, 0, 0};
  const Layout loose{80, 9, 5, 1, 2};
  all_pairs(program, {50, 7, 4}, tight, tight, "a volume without gaps", plain);
  all_pairs(program, {50, 7, 4}, loose, tight, "a volume into a larger one", plain);
  all_pairs(program, {50, 7, 4}, tight, loose, "a part of a volume", later);
  all_pairs(program, {40, 6, 3}, loose, loose, "a part to a part", later);
  all_pairs(program, {40, 6, 1}, {64, 8, 3, 1, 0}, {48, 8, 1, 2, 0}, "a part of an area", flat);
  all_pairs(program, {40, 6, 1}, {64, 8, 3, 1, 0}, {40, 8, 0, 0, 0}, "rows to rows", unaligned);
  all_pairs(program, {40, 6, 1}, {40, 8, 0, 0, 0}, {64, 8, 3, 1, 0}, "rows to rows later",
            flat_later);
  // More than goes at once, by slices and by rows.
  all_pairs(program, {1000, 300, 70}, {1024, 301, 8, 1, 0}, {1000, 310, 0, 0, 0}, "many slices",
            plain);
  all_pairs(program, {4000, 5000, 1}, {4096, 5000, 0, 0, 0}, {4000, 5001, 0, 0, 0}, "many rows",
            flat_later);
  if (program.number("peers", 1) != 0) {
    const Run* const both[] = {&peers, &peers_later};
    for (const Run* run : both) {
      all_pairs(program, {40, 6, 3}, loose, tight, "a volume between peers", *run);
    }
  }
  batches(program, stream);
  refusals(program);
  CHECK(cuStreamDestroy(stream));
  return program.finish();
}
