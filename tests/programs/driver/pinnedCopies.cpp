// Copies of every form from and to pinned memory, alone and in graphs.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>

#include "driver.hpp"
#include "graph.hpp"

namespace {

constexpr int kCounts[] = {25, 17'500, 800'000};  // within a command, beyond it, in many pieces

int* pinned(size_t count) {
  void* memory = nullptr;
  CHECK(cuMemHostAlloc(&memory, count * sizeof(int), 0));
  return static_cast<int*>(memory);
}

CUdeviceptr address_of(const void* memory) { return reinterpret_cast<CUdeviceptr>(memory); }

void count_from(int* values, int count, int first) {
  for (int i = 0; i < count; ++i) values[i] = first + i;
}

bool counts_from(const int* values, int count, int first, int factor = 1, int more = 0) {
  for (int i = 0; i < count; ++i) {
    if (values[i] != (first + i) * factor + more) return false;
  }
  return true;
}

void linear(Program& program, const Device& device, int count) {
  const size_t bytes = static_cast<size_t>(count) * sizeof(int);
  const Stream stream;
  int* const in = pinned(static_cast<size_t>(count));
  int* const out = pinned(static_cast<size_t>(count));
  const CUdeviceptr values = allocate(bytes);

  count_from(in, count, 1);
  CHECK(cuMemcpyHtoD(values, in, bytes));
  count_from(in, count, 900);  // the copy is done: this changes nothing
  device.launch_step(values, count, 2, nullptr);
  CHECK(cuMemcpyDtoH(out, values, bytes));
  program.expect(counts_from(out, count, 1, 2, 1), "plain copies are done when they return");

  // The copy reads what the memory holds when the stream gets there.
  CHECK(cuMemcpyHtoDAsync(values, in, bytes, stream));
  device.launch_step(values, count, 3, stream);
  CHECK(cuMemcpyDtoHAsync(out, values, bytes, stream));
  stream.wait();
  program.expect(counts_from(out, count, 900, 3, 1), "async copies keep the stream's order");

  // By unified addresses, in both directions, and behind a kernel that writes the source.
  device.launch_step(address_of(in), count, 5, stream);
  CHECK(cuMemcpyAsync(values, address_of(in), bytes, stream));
  CHECK(cuMemcpyAsync(address_of(out), values, bytes, stream));
  stream.wait();
  program.expect(counts_from(out, count, 900, 5, 1), "a copy sees what the kernel before it did");
  device.launch_step(address_of(in), count, 1, nullptr);
  CHECK(cuMemcpyHtoD(values, in, bytes));
  program.expect(download(values, 1)[0] == 4502, "and so does a plain one");

  CHECK(cuMemcpy(address_of(out), address_of(in), bytes));
  program.expect(std::equal(in, in + count, out), "within pinned memory");
  program.save(out, bytes);

  // In a batch, halves in turn.
  const size_t half = bytes / 2 / sizeof(int) * sizeof(int);
  CUdeviceptr to[] = {values, values + half};
  CUdeviceptr from[] = {address_of(in), address_of(in) + half};
  size_t sizes[] = {half, bytes - half};
  CUmemcpyAttributes attributes{};
  attributes.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  size_t first = 0;
  count_from(in, count, 50);
  CHECK(cuMemcpyBatchAsync(to, from, sizes, 2, &attributes, &first, 1, stream));
  CHECK(cuMemcpyBatchAsync(from, to, sizes, 2, &attributes, &first, 1, stream));
  CHECK(cuMemcpyDtoHAsync(out, values, bytes, stream));
  stream.wait();
  program.expect(counts_from(out, count, 50) && counts_from(in, count, 50), "in a batch");
  CHECK(cuMemFree(values));
  CHECK(cuMemFreeHost(in));
  CHECK(cuMemFreeHost(out));
}

// `rows` rows of `width` ints, of which those in host memory lie `width` + 3 apart.
struct Sheet {
  size_t width, rows;
  size_t pitch() const { return (width + 3) * sizeof(int); }
};

CUDA_MEMCPY2D upload_of(const Sheet& sheet, CUdeviceptr to, const int* from) {
  CUDA_MEMCPY2D copy{};
  copy.srcMemoryType = CU_MEMORYTYPE_HOST;
  copy.srcHost = from;
  copy.srcPitch = sheet.pitch();
  copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.dstDevice = to;
  copy.dstPitch = sheet.width * sizeof(int);
  copy.WidthInBytes = sheet.width * sizeof(int);
  copy.Height = sheet.rows;
  return copy;
}

CUDA_MEMCPY2D download_of(const Sheet& sheet, int* to, CUdeviceptr from) {
  CUDA_MEMCPY2D copy{};
  copy.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.srcDevice = from;
  copy.srcPitch = sheet.width * sizeof(int);
  copy.dstMemoryType = CU_MEMORYTYPE_HOST;
  copy.dstHost = to;
  copy.dstPitch = sheet.pitch();
  copy.WidthInBytes = sheet.width * sizeof(int);
  copy.Height = sheet.rows;
  return copy;
}

void rows(Program& program, const Device& device, const Sheet& sheet) {
  const Stream stream;
  const size_t host_count = (sheet.width + 3) * sheet.rows;
  const auto count = static_cast<int>(sheet.width * sheet.rows);
  int* const in = pinned(host_count);
  int* const out = pinned(host_count);
  count_from(in, static_cast<int>(host_count), 0);
  const CUdeviceptr values = allocate(static_cast<size_t>(count) * sizeof(int));
  const auto expected = [&](int row, int column) {
    return (row * static_cast<int>(sheet.width + 3) + column) * 2 + 1;
  };
  const auto is_right = [&] {
    for (int row = 0; row < static_cast<int>(sheet.rows); ++row) {
      const int* at = out + static_cast<size_t>(row) * (sheet.width + 3);
      for (int column = 0; column < static_cast<int>(sheet.width); ++column) {
        if (at[column] != expected(row, column)) return false;
      }
      if (std::count(at + sheet.width, at + sheet.width + 3, -1) != 3) return false;
    }
    return true;
  };
  const CUDA_MEMCPY2D up = upload_of(sheet, values, in);
  const CUDA_MEMCPY2D down = download_of(sheet, out, values);
  std::fill_n(out, host_count, -1);
  CHECK(cuMemcpy2D(&up));
  device.launch_step(values, count, 2, nullptr);
  CHECK(cuMemcpy2D(&down));
  program.expect(is_right(), "plain copies of rows");
  std::fill_n(out, host_count, -1);
  CHECK(cuMemcpy2DAsync(&up, stream));
  device.launch_step(values, count, 2, stream);
  CHECK(cuMemcpy2DAsync(&down, stream));
  stream.wait();
  program.expect(is_right(), "async copies of rows");

  // Captured, and launched with what the memory holds then.
  CUgraph graph;
  CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  CHECK(cuMemcpy2DAsync(&up, stream));
  device.launch_step(values, count, 2, stream);
  CHECK(cuMemcpy2DAsync(&down, stream));
  CHECK(cuStreamEndCapture(stream, &graph));
  const CUgraphExec executable = instantiate(graph);
  std::fill_n(out, host_count, -1);
  run(executable, stream);
  program.expect(is_right(), "captured copies of rows");
  program.save(out, host_count * sizeof(int));
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuMemFree(values));
  CHECK(cuMemFreeHost(in));
  CHECK(cuMemFreeHost(out));
}

void arrays(Program& program) {
  constexpr size_t kWidth = 40, kRows = 30;
  CUDA_ARRAY_DESCRIPTOR description{};
  description.Width = kWidth;
  description.Height = kRows;
  description.Format = CU_AD_FORMAT_SIGNED_INT32;
  description.NumChannels = 1;
  CUarray array;
  CHECK(cuArrayCreate(&array, &description));
  int* const in = pinned(kWidth * kRows);
  int* const out = pinned(kWidth * kRows);
  count_from(in, kWidth * kRows, 3);
  CUDA_MEMCPY2D copy{};
  copy.srcMemoryType = CU_MEMORYTYPE_HOST;
  copy.srcHost = in;
  copy.dstMemoryType = CU_MEMORYTYPE_ARRAY;
  copy.dstArray = array;
  copy.WidthInBytes = kWidth * sizeof(int);
  copy.Height = kRows;
  CHECK(cuMemcpy2D(&copy));
  std::swap(copy.srcMemoryType, copy.dstMemoryType);
  copy.srcArray = array;
  copy.dstHost = out;
  CHECK(cuMemcpy2D(&copy));
  program.expect(counts_from(out, kWidth * kRows, 3), "from pinned memory to an array and back");
  program.save(out, kWidth * kRows * sizeof(int));
  CHECK(cuArrayDestroy(array));
  CHECK(cuMemFreeHost(in));
  CHECK(cuMemFreeHost(out));
}

void graph_nodes(Program& program, const Device& device, int count) {
  const size_t bytes = static_cast<size_t>(count) * sizeof(int);
  const Stream stream;
  int* const in = pinned(static_cast<size_t>(count));
  int* const other = pinned(static_cast<size_t>(count));
  int* const out = pinned(static_cast<size_t>(count));
  const CUdeviceptr values = allocate(bytes);
  CUgraph graph;
  CUgraphNode up, down;
  CHECK(cuGraphCreate(&graph, 0));
  const CUDA_MEMCPY3D upward = upload_params(values, in, bytes);
  const CUDA_MEMCPY3D downward = download_params(out, values, bytes);
  CHECK(cuGraphAddMemcpyNode(&up, graph, nullptr, 0, &upward, device.context()));
  CHECK(cuGraphAddMemcpyNode(&down, graph, &up, 1, &downward, device.context()));
  CUDA_MEMCPY3D told{};
  CHECK(cuGraphMemcpyNodeGetParams(up, &told));
  program.expect(told.srcMemoryType == CU_MEMORYTYPE_HOST && told.srcHost == in &&
                     told.dstDevice == values && told.WidthInBytes == bytes,
                 "a node tells what it copies to the device");
  CHECK(cuGraphMemcpyNodeGetParams(down, &told));
  program.expect(told.dstMemoryType == CU_MEMORYTYPE_HOST && told.dstHost == out,
                 "and to the host");
  const CUgraphExec executable = instantiate(graph);
  for (int round = 0; round < 3; ++round) {
    count_from(in, count, 100 * round);
    run(executable, stream);
    program.expect(counts_from(out, count, 100 * round), "nodes copy what the memory holds then");
  }
  count_from(other, count, 7777);
  const CUDA_MEMCPY3D another = upload_params(values, other, bytes);
  CHECK(cuGraphExecMemcpyNodeSetParams(executable, up, &another, device.context()));
  run(executable, stream);
  program.expect(counts_from(out, count, 7777), "an executable graph can be told another source");
  CHECK(cuGraphMemcpyNodeSetParams(up, &another));
  CHECK(cuGraphMemcpyNodeGetParams(up, &told));
  program.expect(told.srcHost == other, "and a graph, too");
  program.save(out, bytes);
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));

  // A host function between: what was copied before it is there, what it wrote is copied after.
  struct Between {
    int *seen, *changed;
    int count;
    std::atomic<bool> right{true};
  } between{out, in, count};
  const auto look = [](void* data) {
    auto* of = static_cast<Between*>(data);
    if (!counts_from(of->seen, of->count, 5, 2, 1)) of->right = false;
    count_from(of->changed, of->count, 31);
  };
  count_from(in, count, 5);
  CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  CHECK(cuMemcpyHtoDAsync(values, in, bytes, stream));
  device.launch_step(values, count, 2, stream);
  CHECK(cuMemcpyDtoHAsync(out, values, bytes, stream));
  CHECK(cuLaunchHostFunc(stream, look, &between));
  CHECK(cuMemcpyHtoDAsync(values, in, bytes, stream));
  CHECK(cuStreamEndCapture(stream, &graph));
  const CUgraphExec captured = instantiate(graph);
  run(captured, stream);
  program.expect(between.right, "a host function sees what was copied before it");
  std::vector<int> last = download(values, static_cast<size_t>(count));
  program.expect(counts_from(last.data(), count, 31), "what it wrote is copied after it");
  program.save(last);
  CHECK(cuGraphExecDestroy(captured));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuMemFree(values));
  for (int* memory : {in, other, out}) CHECK(cuMemFreeHost(memory));
}

// More copies of rows than a stream's staging memory holds, queued while the stream stands still.
void rows_in_line(Program& program) {
  constexpr size_t kRows = 200, kWidth = 75, kCopies = 40;  // 60,000 bytes each
  constexpr size_t kPitch = 96;
  const Stream stream, other;
  int* const in = pinned(kCopies * kRows * kWidth);
  count_from(in, static_cast<int>(kCopies * kRows * kWidth), 1);
  const CUdeviceptr values = allocate(kCopies * kRows * kPitch * sizeof(int));
  const CUdeviceptr word = upload(std::vector<int>(1, 0));
  CHECK(cuStreamWaitValue32(stream, word, 1, CU_STREAM_WAIT_VALUE_EQ));
  for (size_t i = 0; i < kCopies; ++i) {
    CUDA_MEMCPY2D copy{};
    copy.srcMemoryType = CU_MEMORYTYPE_HOST;
    copy.srcHost = in + i * kRows * kWidth;
    copy.srcPitch = kWidth * sizeof(int);
    copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    copy.dstDevice = values + i * kRows * kPitch * sizeof(int);
    copy.dstPitch = kPitch * sizeof(int);
    copy.WidthInBytes = kWidth * sizeof(int);
    copy.Height = kRows;
    CHECK(cuMemcpy2DAsync(&copy, stream));
  }
  CHECK(cuStreamWriteValue32(other, word, 1, CU_STREAM_WRITE_VALUE_DEFAULT));
  stream.wait();
  const std::vector<int> found = download(values, kCopies * kRows * kPitch);
  bool right = true;
  for (size_t row = 0; row < kCopies * kRows; ++row) {
    for (size_t i = 0; i < kWidth; ++i) {
      right = right && found[row * kPitch + i] == static_cast<int>(row * kWidth + i) + 1;
    }
  }
  program.expect(right, "many copies of rows wait in a stream");
  CHECK(cuMemFree(word));
  CHECK(cuMemFree(values));
  CHECK(cuMemFreeHost(in));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("pinnedCopies", argc, argv);
  const Device device;
  for (const int count : kCounts) linear(program, device, count);
  for (const Sheet& sheet : {Sheet{5, 4}, Sheet{300, 200}, Sheet{1000, 900}}) {
    rows(program, device, sheet);
  }
  rows_in_line(program);
  arrays(program);
  for (const int count : kCounts) graph_nodes(program, device, count);
  return program.finish();
}
