// Kernels of one device on the memory of another: what was there before, what came after, what the
// program mapped itself, and a pool's. SPDX-License-Identifier: Apache-2.0
#include "peers.hpp"

namespace {

constexpr int kSmall = 300;
constexpr int kLarge = 1 << 20;

struct Stepper : Side {
  CUmodule module = nullptr;
  CUfunction step = nullptr;

  explicit Stepper(int ordinal) : Side(ordinal) {
    enter();
    CHECK(cuModuleLoadData(&module, kKernels));
    CHECK(cuModuleGetFunction(&step, module, "step"));
  }
  // v[i] = v[i] * factor + 1, and waits.
  void run_step(CUdeviceptr values, int count, int factor) const {
    enter();
    void* arguments[] = {&values, &count, &factor};
    const auto blocks = static_cast<unsigned>((count + 255) / 256);
    CHECK(cuLaunchKernel(step, blocks, 1, 1, 256, 1, 1, 0, nullptr, arguments, nullptr));
    CHECK(cuCtxSynchronize());
  }
  CUdeviceptr filled(int count, unsigned value) const {
    enter();
    const CUdeviceptr values = allocate(static_cast<size_t>(count) * sizeof(int));
    CHECK(cuMemsetD32(values, value, static_cast<size_t>(count)));
    CHECK(cuCtxSynchronize());
    return values;
  }
  std::vector<int> read(CUdeviceptr values, int count) const {
    enter();
    return download(values, static_cast<size_t>(count));
  }
};

bool all(const std::vector<int>& values, int expected) {
  for (const int value : values) {
    if (value != expected) return false;
  }
  return true;
}

void what_they_say(Program& program, const Stepper& one, const Stepper& two) {
  int can = 0, supported = 0;
  CHECK(cuDeviceCanAccessPeer(&can, one.device, two.device));
  CHECK(cuDeviceGetP2PAttribute(&supported, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, one.device,
                                two.device));
  program.expect(can == 1 && supported == 1, "the devices can reach each other");
  CHECK(cuDeviceCanAccessPeer(&can, one.device, one.device));
  program.expect(can == 0, "a device is not its own peer");
}

void before_and_after(Program& program, const Stepper& one, const Stepper& two) {
  const CUdeviceptr small = two.filled(kSmall, 5), large = two.filled(kLarge, 7);
  one.enter();
  CHECK(cuCtxEnablePeerAccess(two.context, 0));
  program.expect(cuCtxEnablePeerAccess(two.context, 0) == CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED,
                 "access is enabled once");
  program.expect(cuCtxEnablePeerAccess(one.context, 0) == CUDA_ERROR_PEER_ACCESS_UNSUPPORTED,
                 "a context is not its own peer");
  one.run_step(small, kSmall, 3);
  one.run_step(large, kLarge, 2);
  const std::vector<int> steps = two.read(small, kSmall);
  program.expect(all(steps, 16) && all(two.read(large, kLarge), 15), "what was there is reached");
  program.save(steps);
  const CUdeviceptr later = two.filled(kLarge, 9);
  one.run_step(later, kLarge, 2);
  two.run_step(later, kLarge, 2);
  const std::vector<int> both = two.read(later, kLarge);
  program.expect(all(both, 39), "and what came after, by both");
  program.save(both);
  for (const CUdeviceptr memory : {small, large, later}) CHECK(cuMemFree(memory));
}

void disabled(Program& program, const Stepper& one, const Stepper& two) {
  one.enter();
  CHECK(cuCtxDisablePeerAccess(two.context));
  program.expect(cuCtxDisablePeerAccess(two.context) == CUDA_ERROR_PEER_ACCESS_NOT_ENABLED,
                 "what was not enabled cannot be disabled");
  // Copies need no access.
  const CUdeviceptr here = one.filled(kSmall, 1), there = two.filled(kSmall, 6);
  one.enter();
  CHECK(cuMemcpyDtoD(here, there, kSmall * sizeof(int)));
  CHECK(cuCtxSynchronize());
  program.expect(all(one.read(here, kSmall), 6), "copies go on");
  CHECK(cuMemFree(here));
  two.enter();
  CHECK(cuMemFree(there));
}

// A stream of one device allocates from a pool of the other, whose memory it then is.
void from_another_pool(Program& program, const Stepper& one, const Stepper& two,
                       CUmemoryPool pool) {
  constexpr size_t kBytes = kLarge * sizeof(int);
  one.enter();
  CUstream stream = nullptr;
  CUdeviceptr there = 0;
  int ordinal = -1;
  size_t before = 0, held = 0, total = 0;
  cuuint64_t used = 0;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  two.enter();
  CHECK(cuMemGetInfo(&before, &total));
  one.enter();
  CHECK(cuMemAllocFromPoolAsync(&there, kBytes, pool, stream));
  CHECK(cuMemsetD32Async(there, 3, kLarge, stream));
  CHECK(cuStreamSynchronize(stream));
  CHECK(cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, there));
  CHECK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used));
  two.enter();
  CHECK(cuMemGetInfo(&held, &total));
  program.expect(ordinal == two.device && used == kBytes && held + kBytes <= before,
                 "the memory is the pool's device's");
  one.run_step(there, kLarge, 2);
  two.run_step(there, kLarge, 2);
  program.expect(all(two.read(there, kLarge), 15), "both devices reach it");
  // The copy crosses from the pool's device, whoever allocated there.
  const CUdeviceptr here = one.filled(kLarge, 0);
  CHECK(cuMemcpyPeer(here, one.context, there, two.context, kBytes));
  const std::vector<int> copied = one.read(here, kLarge);
  program.expect(all(copied, 15), "copies know where it lies");
  program.save(copied);
  CHECK(cuMemFree(here));
  CHECK(cuMemFreeAsync(there, stream));
  CHECK(cuStreamSynchronize(stream));
  CHECK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used));
  program.expect(used == 0, "what the stream freed is the pool's again");
  // The same in a graph.
  CUgraph graph = nullptr;
  CUgraphExec launched = nullptr;
  one.enter();
  CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  CHECK(cuMemAllocFromPoolAsync(&there, kBytes, pool, stream));
  CHECK(cuMemsetD32Async(there, 4, kLarge, stream));
  CHECK(cuStreamEndCapture(stream, &graph));
  CHECK(cuGraphInstantiate(&launched, graph, 0));
  CHECK(cuGraphLaunch(launched, stream));
  CHECK(cuStreamSynchronize(stream));
  CHECK(cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, there));
  two.enter();
  CHECK(cuMemGetInfo(&held, &total));
  program.expect(
      ordinal == two.device && held + kBytes <= before && all(two.read(there, kLarge), 4),
      "a graph allocates from the other device's pool, too");
  CHECK(cuMemFree(there));
  CHECK(cuGraphExecDestroy(launched));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuStreamDestroy(stream));
}

// Mapped memory and pools name the devices that reach them, whatever contexts enable.
void named_devices(Program& program, const Stepper& one, const Stepper& two) {
  CUmemAccessDesc access[2] = {};
  for (int i = 0; i < 2; ++i) {
    access[i].location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access[i].location.id = i == 0 ? one.device : two.device;
    access[i].flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  }
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = access[1].location;
  size_t bytes = 0;
  CHECK(cuMemGetAllocationGranularity(&bytes, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
  CUdeviceptr mapped = 0;
  CUmemGenericAllocationHandle memory = 0;
  CHECK(cuMemAddressReserve(&mapped, bytes, 0, 0, 0));
  CHECK(cuMemCreate(&memory, bytes, &properties, 0));
  CHECK(cuMemMap(mapped, bytes, 0, memory, 0));
  CHECK(cuMemRelease(memory));
  CHECK(cuMemSetAccess(mapped, bytes, access, 2));
  two.enter();
  CHECK(cuMemsetD32(mapped, 8, kSmall));
  CHECK(cuCtxSynchronize());
  one.run_step(mapped, kSmall, 2);
  program.expect(all(two.read(mapped, kSmall), 17), "mapped memory is reached by those it names");
  CHECK(cuMemUnmap(mapped, bytes));
  CHECK(cuMemAddressFree(mapped, bytes));

  CUmemoryPool pool = nullptr;
  CUmemPoolProps shape{};
  shape.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  shape.location = access[1].location;
  CHECK(cuMemPoolCreate(&pool, &shape));
  CUmemAccess_flags flags{};
  CHECK(cuMemPoolGetAccess(&flags, pool, &access[0].location));
  program.expect(flags == CU_MEM_ACCESS_FLAGS_PROT_NONE, "a pool is its own device's at first");
  CHECK(cuMemPoolSetAccess(pool, access, 1));
  CHECK(cuMemPoolGetAccess(&flags, pool, &access[0].location));
  program.expect(flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE, "and open to those it is told");
  two.enter();
  CUdeviceptr pooled = 0;
  CHECK(cuMemAllocFromPoolAsync(&pooled, kSmall * sizeof(int), pool, nullptr));
  CHECK(cuMemsetD32Async(pooled, 2, kSmall, nullptr));
  CHECK(cuStreamSynchronize(nullptr));
  one.run_step(pooled, kSmall, 2);
  program.expect(all(two.read(pooled, kSmall), 5), "which then reach its memory");
  CHECK(cuMemFreeAsync(pooled, nullptr));
  CHECK(cuStreamSynchronize(nullptr));
  from_another_pool(program, one, two, pool);
  CHECK(cuMemPoolDestroy(pool));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("peerAccess", argc, argv);
  initialise_two_devices(program);
  const Stepper one(0);
  const Stepper two(1);
  what_they_say(program, one, two);
  before_and_after(program, one, two);
  disabled(program, one, two);
  named_devices(program, one, two);
  return program.finish();
}
