// Copies between every two devices, and of one device's memory while another is current, whichever
// servers they are on: in the order of their streams, and behind events of other devices.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

__global__ void step(int* values, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) values[i] = values[i] * 3 + 1;
}

// A device's values, and a stream that the default one does not order.
struct Side {
  int device;
  size_t count;
  int* values = nullptr;
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;

  Side(int on, size_t of) : device(on), count(of) {
    CHECK(cudaSetDevice(device));
    CHECK(cudaMalloc(reinterpret_cast<void**>(&values), bytes()));
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  }
  ~Side() {
    cudaSetDevice(device);
    cudaEventDestroy(event);
    cudaStreamDestroy(stream);
    cudaFree(values);
  }
  Side(const Side&) = delete;
  Side& operator=(const Side&) = delete;

  size_t bytes() const { return count * sizeof(int); }
  void fill(int first) const {
    std::vector<int> host(count);
    for (size_t i = 0; i < count; ++i) host[i] = first + static_cast<int>(i);
    CHECK(cudaMemcpy(values, host.data(), bytes(), cudaMemcpyHostToDevice));
  }
  void launch(cudaStream_t on) const {
    CHECK(cudaSetDevice(device));
    step<<<static_cast<unsigned>((count + 255) / 256), 256, 0, on>>>(values,
                                                                     static_cast<int>(count));
    CHECK(cudaGetLastError());
  }
};

bool holds(const Side& side, int first, int steps) {
  std::vector<int> host(side.count);
  CHECK(cudaMemcpy(host.data(), side.values, side.bytes(), cudaMemcpyDeviceToHost));
  for (size_t i = 0; i < side.count; ++i) {
    int expected = first + static_cast<int>(i);
    for (int k = 0; k < steps; ++k) expected = expected * 3 + 1;
    if (host[i] != expected) return false;
  }
  return true;
}

void between(Program& program, const Side& from, const Side& to) {
  CHECK(cudaSetDevice(from.device));
  from.fill(100);
  from.launch(nullptr);
  CHECK(cudaMemcpyPeer(to.values, to.device, from.values, from.device, from.bytes()));
  to.launch(nullptr);
  program.expect(holds(to, 100, 2), "a plain copy lies between the kernels of both devices");

  // On a stream of the source, whose event the target waits for.
  from.launch(from.stream);
  CHECK(cudaMemcpyPeerAsync(to.values, to.device, from.values, from.device, from.bytes(),
                            from.stream));
  CHECK(cudaEventRecord(from.event, from.stream));
  CHECK(cudaSetDevice(to.device));
  CHECK(cudaStreamWaitEvent(to.stream, from.event, 0));
  to.launch(to.stream);
  CHECK(cudaStreamSynchronize(to.stream));
  program.expect(holds(to, 100, 3), "an event of one device orders a stream of another");

  // On a stream of the target, behind a kernel there.
  to.launch(to.stream);
  CHECK(cudaMemcpyAsync(to.values, from.values, from.bytes(), cudaMemcpyDefault, to.stream));
  to.launch(to.stream);
  CHECK(cudaStreamSynchronize(to.stream));
  program.expect(holds(to, 100, 3), "a copy keeps the order of the target's stream");
}

// Memory of one device's order that is given back in another's.
void freed_elsewhere(Program& program, const Side& from, const Side& to) {
  int* scratch = nullptr;
  CHECK(cudaSetDevice(from.device));
  from.fill(5);
  CHECK(cudaMallocAsync(reinterpret_cast<void**>(&scratch), from.bytes(), from.stream));
  CHECK(cudaMemcpyAsync(scratch, from.values, from.bytes(), cudaMemcpyDefault, from.stream));
  CHECK(cudaEventRecord(from.event, from.stream));
  CHECK(cudaSetDevice(to.device));
  CHECK(cudaStreamWaitEvent(to.stream, from.event, 0));
  CHECK(cudaMemcpyAsync(to.values, scratch, from.bytes(), cudaMemcpyDefault, to.stream));
  CHECK(cudaFreeAsync(scratch, to.stream));
  CHECK(cudaStreamSynchronize(to.stream));
  program.expect(holds(to, 5, 0), "memory is given back on a stream of another device");
  CHECK(cudaSetDevice(from.device));
  CHECK(cudaDeviceSynchronize());
}

// The current device is another than the memory's.
void from_elsewhere(Program& program, const Side& side, int current) {
  CHECK(cudaSetDevice(current));
  side.fill(7);
  program.expect(holds(side, 7, 0), "memory is reached while another device is current");
  side.launch(nullptr);
  CHECK(cudaDeviceSynchronize());  // of its own device: no other waits for that
  CHECK(cudaSetDevice(current));
  program.expect(holds(side, 7, 1), "and read");
  CHECK(cudaMemset(side.values, 0, side.bytes()));
  CHECK(cudaDeviceSynchronize());
  int last = 1;
  CHECK(cudaMemcpy(&last, side.values + side.count - 1, sizeof last, cudaMemcpyDeviceToHost));
  program.expect(last == 0, "and filled");
  CHECK(cudaMemcpy(side.values, side.values + side.count / 2, side.bytes() / 4,
                   cudaMemcpyDeviceToDevice));
  CHECK(cudaDeviceSynchronize());
}

int main(int argc, char** argv) {
  Program program("copiesAcrossDevices", argc, argv);
  int devices = 0;
  CHECK(cudaGetDeviceCount(&devices));
  // What goes in one message, and what goes in pieces that do not come out even.
  for (const size_t count : {size_t{1001}, size_t{2500007}}) {
    for (int from = 0; from < devices; ++from) {
      for (int to = 0; to < devices; ++to) {
        if (from == to) continue;
        const Side source(from, count), target(to, count);
        between(program, source, target);
        from_elsewhere(program, target, from);
        freed_elsewhere(program, source, target);
      }
    }
  }
  std::printf("devices: %d\n", devices);
  return program.finish();
}
