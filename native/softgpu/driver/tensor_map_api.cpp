// Entry points that encode tensor maps: opaque values, checked as CUDA says and laid out our way.
// SPDX-License-Identifier: Apache-2.0
//
// No kernel of this device reads one (its capability has no bulk tensor copies), so that what is
// kept of the arguments matters only for being the same for the same arguments.
#include <algorithm>
#include <cstring>

#include "guard.hpp"

using namespace softgpu;

namespace {

constexpr uint32_t kMostDimensions = 5;

struct Encoded {
  uint64_t address;
  uint8_t kind, data_type, rank, interleave, swizzle, promotion, fill, mode;
  uint32_t last[kMostDimensions];  ///< size - 1 of each dimension
  uint32_t unused;
  uint64_t strides[kMostDimensions - 1];
  uint16_t box[kMostDimensions];
  uint8_t element_strides[kMostDimensions + 1];
  int16_t lower[kMostDimensions - 2], upper[kMostDimensions - 2];
  uint16_t channels, pixels;
};
static_assert(sizeof(Encoded) <= sizeof(CUtensorMap));

enum Kind : uint8_t { tiled = 1, im2col, im2col_wide };

struct Layout {
  CUtensorMapDataType type;
  cuuint32_t rank;
  void* address;
  const cuuint64_t* dimensions;
  const cuuint64_t* strides;
  const cuuint32_t* element_strides;
  CUtensorMapInterleave interleave;
  CUtensorMapSwizzle swizzle;
  CUtensorMapL2promotion promotion;
  CUtensorMapFloatOOBfill fill;
};

unsigned element_bits(CUtensorMapDataType type) {
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_16U4_ALIGN8B:
      return 4;
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
    case CU_TENSOR_MAP_DATA_TYPE_16U4_ALIGN16B:
    case CU_TENSOR_MAP_DATA_TYPE_16U6_ALIGN16B:
      return 8;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
      return 16;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
      return 64;
    default:
      return 32;
  }
}

bool is_known(const Layout& l) {
  return l.type <= CU_TENSOR_MAP_DATA_TYPE_16U6_ALIGN16B &&
         l.interleave <= CU_TENSOR_MAP_INTERLEAVE_32B &&
         l.swizzle <= CU_TENSOR_MAP_SWIZZLE_128B_ATOM_64B &&
         l.promotion <= CU_TENSOR_MAP_L2_PROMOTION_L2_256B &&
         l.fill <= CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA;
}

bool is_wide_aligned(const Layout& l) {
  return l.interleave == CU_TENSOR_MAP_INTERLEAVE_32B ||
         l.type == CU_TENSOR_MAP_DATA_TYPE_16U4_ALIGN16B ||
         l.type == CU_TENSOR_MAP_DATA_TYPE_16U6_ALIGN16B;
}

// What all kinds of map ask of their arguments.
bool is_valid(const CUtensorMap* map, const Layout& l, uint32_t least_rank) {
  const uint64_t alignment = is_wide_aligned(l) ? 32 : 16;
  if (map == nullptr || reinterpret_cast<uintptr_t>(map) % 64 != 0 || !is_known(l)) return false;
  if (l.interleave != CU_TENSOR_MAP_INTERLEAVE_NONE) least_rank = std::max(least_rank, 3u);
  if (l.rank < least_rank || l.rank > kMostDimensions) return false;
  if (l.address == nullptr || reinterpret_cast<uintptr_t>(l.address) % alignment != 0) return false;
  if (l.dimensions == nullptr || l.element_strides == nullptr) return false;
  if (l.rank > 1 && l.strides == nullptr) return false;
  for (uint32_t i = 0; i < l.rank; ++i) {
    if (l.dimensions[i] - 1 >= uint64_t{1} << 32) return false;
    if (l.element_strides[i] - 1 >= 8) return false;
  }
  for (uint32_t i = 0; i + 1 < l.rank; ++i) {
    if (l.strides[i] % alignment != 0 || l.strides[i] >= uint64_t{1} << 40) return false;
  }
  return l.interleave != CU_TENSOR_MAP_INTERLEAVE_32B || l.swizzle == CU_TENSOR_MAP_SWIZZLE_32B;
}

// Bytes of a row of the box, for its alignment and for swizzling.
bool row_fits(const Layout& l, uint64_t elements) {
  if (l.interleave != CU_TENSOR_MAP_INTERLEAVE_NONE) return true;
  const uint64_t bytes = elements * element_bits(l.type) / 8;
  const uint64_t most = l.swizzle == CU_TENSOR_MAP_SWIZZLE_NONE  ? ~uint64_t{0}
                        : l.swizzle == CU_TENSOR_MAP_SWIZZLE_32B ? 32
                        : l.swizzle == CU_TENSOR_MAP_SWIZZLE_64B ? 64
                                                                 : 128;
  return bytes % 16 == 0 && bytes <= most;
}

Encoded encoded(Kind kind, const Layout& l) {
  Encoded out{};
  out.address = reinterpret_cast<uint64_t>(l.address);
  out.kind = kind;
  out.data_type = static_cast<uint8_t>(l.type);
  out.rank = static_cast<uint8_t>(l.rank);
  out.interleave = static_cast<uint8_t>(l.interleave);
  out.swizzle = static_cast<uint8_t>(l.swizzle);
  out.promotion = static_cast<uint8_t>(l.promotion);
  out.fill = static_cast<uint8_t>(l.fill);
  for (uint32_t i = 0; i < l.rank; ++i) {
    out.last[i] = static_cast<uint32_t>(l.dimensions[i] - 1);
    out.element_strides[i] = static_cast<uint8_t>(l.element_strides[i]);
  }
  for (uint32_t i = 0; i + 1 < l.rank; ++i) out.strides[i] = l.strides[i];
  return out;
}

void write(CUtensorMap* map, const Encoded& encoded) {
  std::memset(map, 0, sizeof *map);
  std::memcpy(map, &encoded, sizeof encoded);
}

}  // namespace

extern "C" CUresult cuTensorMapEncodeTiled(
    CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
    const cuuint64_t* dimensions, const cuuint64_t* strides, const cuuint32_t* box,
    const cuuint32_t* element_strides, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
    CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  const Layout layout{type,       rank,    address,   dimensions, strides, element_strides,
                      interleave, swizzle, promotion, fill};
  return with_context([&](Context&) {
    if (!is_valid(map, layout, 1) || box == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!row_fits(layout, box[0])) return CUDA_ERROR_INVALID_VALUE;
    Encoded out = encoded(tiled, layout);
    for (uint32_t i = 0; i < rank; ++i) {
      if (box[i] - 1 >= 256) return CUDA_ERROR_INVALID_VALUE;
      out.box[i] = static_cast<uint16_t>(box[i]);
    }
    write(map, out);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuTensorMapEncodeIm2col(
    CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
    const cuuint64_t* dimensions, const cuuint64_t* strides, const int* lower, const int* upper,
    cuuint32_t channels, cuuint32_t pixels, const cuuint32_t* element_strides,
    CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
    CUtensorMapFloatOOBfill fill) {
  const Layout layout{type,       rank,    address,   dimensions, strides, element_strides,
                      interleave, swizzle, promotion, fill};
  return with_context([&](Context&) {
    if (!is_valid(map, layout, 3) || lower == nullptr || upper == nullptr) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (channels - 1 >= 256 || pixels - 1 >= 1024 || !row_fits(layout, channels)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const int most = 1 << (16 / (rank - 2) - 1);  // corners share 16 bits
    Encoded out = encoded(im2col, layout);
    for (uint32_t i = 0; i + 2 < rank; ++i) {
      if (lower[i] < -most || lower[i] >= most || upper[i] < -most || upper[i] >= most) {
        return CUDA_ERROR_INVALID_VALUE;
      }
      out.lower[i] = static_cast<int16_t>(lower[i]);
      out.upper[i] = static_cast<int16_t>(upper[i]);
    }
    out.channels = static_cast<uint16_t>(channels);
    out.pixels = static_cast<uint16_t>(pixels);
    write(map, out);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuTensorMapEncodeIm2colWide(
    CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
    const cuuint64_t* dimensions, const cuuint64_t* strides, int lower, int upper,
    cuuint32_t channels, cuuint32_t pixels, const cuuint32_t* element_strides,
    CUtensorMapInterleave interleave, CUtensorMapIm2ColWideMode mode, CUtensorMapSwizzle swizzle,
    CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  const Layout layout{type,       rank,    address,   dimensions, strides, element_strides,
                      interleave, swizzle, promotion, fill};
  return with_context([&](Context&) {
    if (!is_valid(map, layout, 3) || mode > CU_TENSOR_MAP_IM2COL_WIDE_MODE_W128 || channels == 0 ||
        channels > 256 || pixels == 0 || pixels > 1024 || lower < -32768 || lower > 32767 ||
        upper < -32768 || upper > 32767) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    Encoded out = encoded(im2col_wide, layout);
    out.mode = static_cast<uint8_t>(mode);
    out.lower[0] = static_cast<int16_t>(lower);
    out.upper[0] = static_cast<int16_t>(upper);
    out.channels = static_cast<uint16_t>(channels);
    out.pixels = static_cast<uint16_t>(pixels);
    write(map, out);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuTensorMapReplaceAddress(CUtensorMap* map, void* address) {
  return with_context([&](Context&) {
    Encoded known;
    if (map == nullptr || reinterpret_cast<uintptr_t>(map) % 64 != 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    std::memcpy(&known, map, sizeof known);
    const uint64_t alignment = known.interleave == CU_TENSOR_MAP_INTERLEAVE_32B ? 32 : 16;
    const auto value = reinterpret_cast<uint64_t>(address);
    if (known.kind < tiled || known.kind > im2col_wide || value == 0 || value % alignment != 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    known.address = value;
    write(map, known);
    return CUDA_SUCCESS;
  });
}
