// Every device has variables, constants and kernel attributes of its own, whichever server it is
// on, and keeps them when another device is reset.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

constexpr int kCount = 256;

__constant__ int factor = 1;
__device__ int total = 7;
__device__ int table[kCount];

__global__ void evaluate(int* out, int n) {
  extern __shared__ int scratch[];
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  scratch[threadIdx.x] = i;
  __syncthreads();
  if (i >= n) return;
  out[i] = scratch[threadIdx.x] * factor;
  table[i] = out[i] + 1;
  atomicAdd(&total, 1);
}

// One use of a device: its constant, a kernel, what the kernel left in variables.
void use(Program& program, int device, int expected_total) {
  CHECK(cudaSetDevice(device));
  const int own = 3 + device;
  CHECK(cudaMemcpyToSymbol(factor, &own, sizeof own));
  const DeviceBuffer<int> out(kCount);
  evaluate<<<2, kCount / 2, kCount / 2 * sizeof(int)>>>(out.get(), kCount);
  CHECK(cudaGetLastError());
  bool right = true;
  const std::vector<int> values = out.download();
  for (int i = 0; i < kCount; ++i) right = right && values[i] == i * own;
  program.expect(right, "a kernel reads its own device's constant");

  int sum = 0;
  CHECK(cudaMemcpyFromSymbol(&sum, total, sizeof sum));
  program.expect(sum == expected_total, "a variable counts its own device's kernels");
  void* address = nullptr;
  CHECK(cudaGetSymbolAddress(&address, table));
  cudaPointerAttributes attributes = {};
  CHECK(cudaPointerGetAttributes(&attributes, address));
  program.expect(attributes.device == device, "a variable's address is its device's");
  std::vector<int> copy(kCount);
  CHECK(cudaMemcpy(copy.data(), address, sizeof table, cudaMemcpyDeviceToHost));
  for (int i = 0; i < kCount; ++i) right = right && copy[i] == i * own + 1;
  program.expect(right, "a variable's address names what the device's kernels write");
  program.save(values);
}

void set_attributes(Program& program, int devices) {
  for (int device = 0; device < devices; ++device) {
    CHECK(cudaSetDevice(device));
    CHECK(cudaFuncSetAttribute(evaluate, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               4096 * (device + 1)));
  }
  for (int device = 0; device < devices; ++device) {
    CHECK(cudaSetDevice(device));
    cudaFuncAttributes attributes = {};
    CHECK(cudaFuncGetAttributes(&attributes, evaluate));
    program.expect(attributes.maxDynamicSharedSizeBytes == 4096 * (device + 1),
                   "a kernel's attributes are each device's own");
    int blocks = 0;
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, evaluate, kCount, 0));
    program.expect(blocks > 0, "occupancy is answered on every device");
  }
}

void replay(Program& program, int device) {
  CHECK(cudaSetDevice(device));
  const DeviceBuffer<int> out(kCount);
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  CHECK(cudaStreamCreate(&stream));
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  evaluate<<<2, kCount / 2, kCount / 2 * sizeof(int), stream>>>(out.get(), kCount);
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&executable, graph, 0));
  CHECK(cudaGraphLaunch(executable, stream));
  CHECK(cudaStreamSynchronize(stream));
  const std::vector<int> values = out.download();
  program.expect(values[kCount - 1] == (kCount - 1) * (3 + device), "a graph has its own device's");
  CHECK(cudaGraphExecDestroy(executable));
  CHECK(cudaGraphDestroy(graph));
  CHECK(cudaStreamDestroy(stream));
}

int main(int argc, char** argv) {
  Program program("perDeviceState", argc, argv);
  int devices = 0;
  CHECK(cudaGetDeviceCount(&devices));
  for (int device = 0; device < devices; ++device) use(program, device, 7 + kCount);
  for (int device = devices - 1; device >= 0; --device) use(program, device, 7 + 2 * kCount);
  set_attributes(program, devices);
  for (int device = 0; device < devices; ++device) replay(program, device);
  // The first device's variables begin anew; the others' stay.
  CHECK(cudaSetDevice(0));
  CHECK(cudaDeviceReset());
  for (int device = devices - 1; device > 0; --device) use(program, device, 7 + 4 * kCount);
  use(program, 0, 7 + kCount);
  std::printf("devices: %d\n", devices);
  return program.finish();
}
