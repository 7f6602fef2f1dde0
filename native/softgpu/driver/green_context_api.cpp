// Entry points about green contexts and the parts of devices that they are made of.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cstring>

#include "config.hpp"
#include "green_context.hpp"
#include "guard.hpp"

using namespace softgpu;

namespace {

/// What is internal to a CUdevResource.
struct Part {
  uint64_t multiprocessors = 0;  ///< a bit for each
  uint64_t split = 0;            ///< the call that it came from; 0: whole
  uint32_t ordinal = 0;
  uint32_t mark = 0;
};
constexpr uint32_t kMark = 0x736d7031;
static_assert(sizeof(Part) <= sizeof(CUdevResource::_internal_padding));
static_assert(kSmCount <= 64);

struct Granularity {
  unsigned least, step;
};

Granularity granularity(bool coscheduled = true) {
  const int major = config().compute_capability / 10;
  if (!coscheduled || major < 8) return {2, 2};
  return major == 8 ? Granularity{4, 2} : Granularity{8, 8};
}

uint64_t first_bits(unsigned count) { return count >= 64 ? ~0ull : (1ull << count) - 1; }

/// Takes the lowest `count` bits that are set out of `from`.
uint64_t take(uint64_t* from, unsigned count) {
  uint64_t taken = 0;
  for (; count > 0 && *from != 0; --count) {
    taken |= *from & -*from;
    *from &= *from - 1;
  }
  return taken;
}

CUdevResource describe(const Part& part, const Granularity& granularity) {
  CUdevResource resource{};
  if (part.multiprocessors == 0) return resource;
  resource.type = CU_DEV_RESOURCE_TYPE_SM;
  resource.sm.smCount = static_cast<unsigned>(std::popcount(part.multiprocessors));
  resource.sm.minSmPartitionSize = granularity.least;
  resource.sm.smCoscheduledAlignment = granularity.step;
  std::memcpy(resource._internal_padding, &part, sizeof part);
  return resource;
}

CUresult read(const CUdevResource& resource, Part* part) {
  std::memcpy(part, resource._internal_padding, sizeof *part);
  return resource.type == CU_DEV_RESOURCE_TYPE_SM && part->mark == kMark
             ? CUDA_SUCCESS
             : CUDA_ERROR_INVALID_RESOURCE_TYPE;
}

CUresult answer(const Device& device, uint64_t multiprocessors, CUdevResource* out,
                CUdevResourceType type) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (type != CU_DEV_RESOURCE_TYPE_SM) return CUDA_ERROR_INVALID_RESOURCE_TYPE;
  *out =
      describe({multiprocessors, 0, static_cast<uint32_t>(device.ordinal), kMark}, granularity());
  return CUDA_SUCCESS;
}

/// The descriptor is never ended, as there is no call for it.
struct Descriptor {
  uint64_t multiprocessors = 0;
  int ordinal = 0;
};
HandleTable<Descriptor, CUdevResourceDesc, 23>& descriptors() {
  static auto& table = *new HandleTable<Descriptor, CUdevResourceDesc, 23>;
  return table;
}

/// For calls about one green context: `call(GreenContext&, Context&)`.
template <class Call>
CUresult with_green(CUgreenCtx handle, Call&& call) noexcept {
  return with_driver([&]() -> CUresult {
    std::shared_ptr<GreenContext> green = green_contexts().find(handle);
    if (!green) return CUDA_ERROR_INVALID_CONTEXT;
    std::shared_ptr<Context> context = green->context.lock();
    if (!context || green->destroyed.load()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    return call(*green, *context);
  });
}

}  // namespace

extern "C" CUresult cuDeviceGetDevResource(CUdevice ordinal, CUdevResource* out,
                                           CUdevResourceType type) {
  return with_driver([&] {
    Device* device = Driver::get().device(ordinal);
    if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    return answer(*device, first_bits(kSmCount), out, type);
  });
}

extern "C" CUresult cuCtxGetDevResource(CUcontext handle, CUdevResource* out,
                                        CUdevResourceType type) {
  return with_driver([&] {
    std::shared_ptr<Context> context = find_context(handle);
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    std::shared_ptr<GreenContext> green = find_green_context(handle);
    return answer(context->device, green ? green->multiprocessors : first_bits(kSmCount), out,
                  type);
  });
}

extern "C" CUresult cuGreenCtxGetDevResource(CUgreenCtx handle, CUdevResource* out,
                                             CUdevResourceType type) {
  return with_green(handle, [&](GreenContext& green, Context& context) {
    return answer(context.device, green.multiprocessors, out, type);
  });
}

extern "C" CUresult cuDevSmResourceSplitByCount(CUdevResource* result, unsigned int* groups,
                                                const CUdevResource* input,
                                                CUdevResource* remaining, unsigned int flags,
                                                unsigned int least) {
  static std::atomic<uint64_t> splits{0};
  return with_driver([&] {
    constexpr unsigned kKnown = CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING |
                                CU_DEV_SM_RESOURCE_SPLIT_MAX_POTENTIAL_CLUSTER_SIZE;
    if (groups == nullptr || input == nullptr || (flags & ~kKnown) != 0 ||
        (result != nullptr && *groups == 0)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    Part part;
    if (CUresult r = read(*input, &part); r != CUDA_SUCCESS) return r;
    if (part.split != 0) return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
    if (least > input->sm.smCount) return CUDA_ERROR_INVALID_VALUE;
    const Granularity unit =
        granularity((flags & CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING) == 0);
    const unsigned size = (std::max(least, unit.least) + unit.step - 1) / unit.step * unit.step;
    const unsigned possible = input->sm.smCount / size;
    if (result == nullptr) {
      *groups = possible;
      return CUDA_SUCCESS;
    }
    if (possible == 0) return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
    *groups = std::min(*groups, possible);
    uint64_t left = part.multiprocessors;
    part.split = ++splits;
    for (unsigned i = 0; i < *groups; ++i) {
      part.multiprocessors = take(&left, size);
      result[i] = describe(part, unit);
    }
    part.multiprocessors = left;
    if (remaining != nullptr) *remaining = describe(part, unit);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDevResourceGenerateDesc(CUdevResourceDesc* out, CUdevResource* resources,
                                              unsigned int count) {
  return with_driver([&] {
    if (out == nullptr || resources == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
    Part first;
    auto descriptor = std::make_shared<Descriptor>();
    for (unsigned i = 0; i < count; ++i) {
      Part part;
      if (CUresult r = read(resources[i], &part); r != CUDA_SUCCESS) return r;
      if (i == 0) first = part;
      if (part.ordinal != first.ordinal || part.split != first.split) {
        return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
      }
      descriptor->multiprocessors |= part.multiprocessors;
    }
    descriptor->ordinal = static_cast<int>(first.ordinal);
    *out = descriptors().insert(std::move(descriptor));
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuGreenCtxCreate(CUgreenCtx* out, CUdevResourceDesc handle, CUdevice ordinal,
                                     unsigned int flags) {
  return with_driver([&] {
    std::shared_ptr<Descriptor> descriptor = descriptors().find(handle);
    if (out == nullptr || !descriptor || flags != CU_GREEN_CTX_DEFAULT_STREAM) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    Device* device = Driver::get().device(ordinal);
    if (device == nullptr || descriptor->ordinal != ordinal) return CUDA_ERROR_INVALID_DEVICE;
    CUcontext primary = nullptr;
    if (CUresult r = cuDevicePrimaryCtxRetain(&primary, ordinal); r != CUDA_SUCCESS) return r;
    std::shared_ptr<Context> context = find_context(primary);
    auto green = std::make_shared<GreenContext>();
    green->multiprocessors = descriptor->multiprocessors;
    if (!context || !context->add_green(green)) {
      cuDevicePrimaryCtxRelease_v2(ordinal);
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
    green->legacy = std::make_shared<Stream>(*context, 0, 0, green);
    green->legacy->legacy = true;
    context->add_stream(green->legacy);
    *out = green->handle = green_contexts().insert(green);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuGreenCtxDestroy(CUgreenCtx handle) {
  return with_green(handle, [](GreenContext& green, Context& context) {
    const CUdevice ordinal = context.device.ordinal;
    end_green_context(green);
    return cuDevicePrimaryCtxRelease_v2(ordinal);
  });
}

extern "C" CUresult cuCtxFromGreenCtx(CUcontext* out, CUgreenCtx handle) {
  return with_green(handle, [&](GreenContext& green, Context&) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = green.current;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuGreenCtxGetId(CUgreenCtx handle, unsigned long long* out) {
  if (handle == nullptr) {
    if (std::shared_ptr<GreenContext> green = current_green_context()) handle = green->handle;
  }
  return with_green(handle, [&](GreenContext& green, Context&) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = green.id;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuGreenCtxStreamCreate(CUstream* out, CUgreenCtx handle, unsigned int flags,
                                           int priority) {
  return with_green(handle, [&](GreenContext& green, Context& context) {
    if (out == nullptr || flags != CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
    *out = make_stream(context, green.legacy->green, flags, priority)->handle;
    return CUDA_SUCCESS;
  });
}
