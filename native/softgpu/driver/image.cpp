// Reads module images: which PTX a fat binary holds, and which of it suits the device.
// SPDX-License-Identifier: Apache-2.0
#include "image.hpp"

#include <zstd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <optional>
#include <set>

namespace softgpu {
namespace {

constexpr uint32_t kWrapperMagic = 0x466243b1;
constexpr uint32_t kContainerMagic = 0xba55ed50;
constexpr uint32_t kElfMagic = 0x464c457f;
constexpr uint64_t kZstd = 0x8000;
constexpr uint64_t kLz4 = 0x2000;
constexpr size_t kTextLimit = size_t{1} << 30;
constexpr char kBoundary[] = "\n//@softgpu: the next text of this module\n";
constexpr char kEmptyModule[] = ".version 7.0\n.target sm_52\n.address_size 64\n";

template <class T>
T load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

struct Wrapper {
  uint32_t magic;
  uint32_t version;
  const void* data;
  const void* more;  ///< version 2: a null-terminated list of the fat binaries that were linked
};

struct Entry {
  uint16_t kind;
  uint32_t arch;
  uint64_t flags;
  const uint8_t* payload;
  uint64_t payload_bytes;
  uint32_t compressed_bytes;
  uint64_t text_bytes;
};

constexpr uint16_t kPtx = 1;
constexpr uint16_t kCubin = 2;

/// The entries of a container; stops at the first that does not fit.
std::vector<Entry> entries(const uint8_t* container, uint64_t limit) {
  std::vector<Entry> found;
  uint64_t at = load<uint16_t>(container + 6);
  uint64_t body = load<uint64_t>(container + 8);
  if (body > limit || at > limit - body) return found;
  uint64_t end = at + body;
  while (end - at >= 0x40) {
    const uint8_t* header = container + at;
    uint64_t header_bytes = load<uint32_t>(header + 4);
    uint64_t padded = load<uint64_t>(header + 8);
    if (header_bytes < 0x30 || header_bytes > end - at || padded > end - at - header_bytes) break;
    Entry entry{};
    entry.kind = load<uint16_t>(header);
    entry.arch = load<uint32_t>(header + 0x1c);
    entry.flags = load<uint64_t>(header + 0x28);
    entry.payload = header + header_bytes;
    entry.payload_bytes = padded;
    entry.compressed_bytes = load<uint32_t>(header + 0x10);
    entry.text_bytes = header_bytes >= 0x40 ? load<uint64_t>(header + 0x38) : 0;
    found.push_back(entry);
    at += header_bytes + padded;
  }
  return found;
}

std::optional<std::string> text_of(const Entry& entry) {
  std::string text;
  if (entry.flags & (kZstd | kLz4)) {
    uint64_t bytes = std::min<uint64_t>(entry.compressed_bytes, entry.payload_bytes);
    if (entry.text_bytes > kTextLimit) return std::nullopt;
    text.resize(entry.text_bytes);
    if (entry.flags & kZstd) {
      size_t got = ZSTD_decompress(text.data(), text.size(), entry.payload, bytes);
      if (ZSTD_isError(got)) return std::nullopt;
      text.resize(got);
    } else if (!lz4_decompress(entry.payload, bytes, &text, entry.text_bytes)) {
      return std::nullopt;
    }
  } else {
    text.assign(reinterpret_cast<const char*>(entry.payload), entry.payload_bytes);
  }
  text.resize(std::min(text.size(), text.find('\0')));  // padding
  return text;
}

/// PTX for sm_90a or sm_120f runs on that architecture (or family) alone.
bool specific_target(const std::string& text) {
  size_t at = text.find(".target");
  if (at == std::string::npos) return false;
  at = text.find("sm_", at);
  if (at == std::string::npos) return false;
  at += 3;
  while (at < text.size() && std::isdigit(static_cast<unsigned char>(text[at]))) ++at;
  return at < text.size() && (text[at] == 'a' || text[at] == 'f');
}

/// The highest architecture that the device reaches, else the lowest beyond it.
std::optional<std::string> best_text(const std::vector<Entry>& all, int cc) {
  std::vector<Entry> ptx;
  std::copy_if(all.begin(), all.end(), std::back_inserter(ptx),
               [](const Entry& e) { return e.kind == kPtx; });
  auto rank = [cc](const Entry& e) {
    int arch = static_cast<int>(e.arch);
    return arch <= cc ? cc - arch : 1'000'000 + arch;
  };
  std::stable_sort(ptx.begin(), ptx.end(),
                   [&](const Entry& a, const Entry& b) { return rank(a) < rank(b); });
  std::optional<std::string> fallback;
  for (const Entry& entry : ptx) {
    std::optional<std::string> text = text_of(entry);
    if (!text) continue;
    if (!specific_target(*text)) return text;
    if (!fallback) fallback = std::move(text);
  }
  return fallback;
}

CUresult no_ptx(const std::set<uint32_t>& archs, std::string* log) {
  std::string line = "this image holds no PTX";
  const char* separator = ", only machine code for sm_";
  for (uint32_t arch : archs) {
    line += separator + std::to_string(arch);
    separator = ", sm_";
  }
  line +=
      "; the software GPU needs PTX: add `-gencode arch=compute_80,code=compute_80` to nvcc's "
      "options (for CuPy set CUPY_COMPILE_WITH_PTX=1)";
  std::fprintf(stderr, "softgpu: %s\n", line.c_str());
  if (log != nullptr) *log += line + "\n";
  return CUDA_ERROR_NO_BINARY_FOR_GPU;
}

CUresult read_container(const uint8_t* data, uint64_t limit, int cc, Image* out, std::string* log) {
  std::vector<Entry> all = entries(data, limit);
  if (auto text = best_text(all, cc)) {
    out->texts.push_back(std::move(*text));
    return CUDA_SUCCESS;
  }
  if (all.empty()) return CUDA_SUCCESS;  // nothing to load is not an error
  std::set<uint32_t> archs;
  for (const Entry& entry : all) {
    if (entry.kind == kCubin) archs.insert(entry.arch);
  }
  return no_ptx(archs, log);
}

/// The container that a wrapper or a pointer to a container leads to, or null.
const uint8_t* container_of(const void* data) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  if (bytes == nullptr) return nullptr;
  if (load<uint32_t>(bytes) == kWrapperMagic) {
    bytes = static_cast<const uint8_t*>(static_cast<const Wrapper*>(data)->data);
  }
  return bytes != nullptr && load<uint32_t>(bytes) == kContainerMagic ? bytes : nullptr;
}

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max() / 2;

CUresult read_wrapper(const Wrapper& wrapper, int cc, Image* out, std::string* log) {
  if (wrapper.version != 2) {
    const uint8_t* container = container_of(wrapper.data);
    if (container == nullptr) return CUDA_ERROR_INVALID_IMAGE;
    CUresult r = read_container(container, kNoLimit, cc, out, log);
    if (r == CUDA_SUCCESS && out->texts.empty()) out->texts.push_back(kEmptyModule);
    return r;
  }
  // Relocatable device code: the container has machine code alone; the PTX of each object is
  // reached through the list, and is linked here.
  const auto* list = static_cast<const void* const*>(wrapper.more);
  for (; list != nullptr && *list != nullptr; ++list) {
    const uint8_t* container = container_of(*list);
    if (container == nullptr) continue;
    if (CUresult r = read_container(container, kNoLimit, cc, out, log); r != CUDA_SUCCESS) return r;
  }
  // nvcc puts such a stub, with nothing to link, into every executable.
  if (out->texts.empty()) out->texts.push_back(kEmptyModule);
  return CUDA_SUCCESS;
}

bool looks_like_ptx(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (std::isspace(static_cast<unsigned char>(text[at]))) {
      ++at;
    } else if (text.substr(at, 2) == "//") {
      at = std::min(text.find('\n', at), text.size());
    } else if (text.substr(at, 2) == "/*") {
      at = text.find("*/", at + 2);
      if (at == std::string_view::npos) return false;
      at += 2;
    } else {
      break;
    }
  }
  return text.substr(at, 8) == ".version";
}

CUresult read_text(std::string_view text, Image* out, std::string* log) {
  text = text.substr(0, text.find('\0'));
  if (!looks_like_ptx(text)) {
    if (log != nullptr) *log += "the image is neither PTX (.version …) nor a fat binary\n";
    return CUDA_ERROR_INVALID_IMAGE;
  }
  for (size_t at = 0;;) {
    size_t next = text.find(kBoundary, at);
    out->texts.emplace_back(text.substr(at, next - at));
    if (next == std::string_view::npos) return CUDA_SUCCESS;
    at = next + sizeof kBoundary - 1;
  }
}

}  // namespace

CUresult read_image(const void* data, int cc, Image* out, std::string* log) {
  if (data == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const auto* bytes = static_cast<const uint8_t*>(data);
  // A text may be shorter than a magic number.
  if (bytes[0] != 0 && bytes[1] != 0 && bytes[2] != 0) {
    switch (load<uint32_t>(bytes)) {
      case kWrapperMagic:
        return read_wrapper(*static_cast<const Wrapper*>(data), cc, out, log);
      case kContainerMagic:
        return read_container(bytes, kNoLimit, cc, out, log);
      case kElfMagic:
        return no_ptx({load<uint32_t>(bytes + 48) & 0xff}, log);  // e_flags: the architecture
      default:
        break;
    }
  }
  return read_text(reinterpret_cast<const char*>(data), out, log);
}

CUresult read_image(const void* data, size_t bytes, int cc, Image* out, std::string* log) {
  if (data == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  const auto* start = static_cast<const uint8_t*>(data);
  if (bytes >= 24) {
    uint32_t magic = load<uint32_t>(start);
    if (magic == kContainerMagic) return read_container(start, bytes, cc, out, log);
    if (magic == kWrapperMagic) {
      return read_wrapper(*static_cast<const Wrapper*>(data), cc, out, log);
    }
    if (magic == kElfMagic && bytes >= 64) return no_ptx({load<uint32_t>(start + 48) & 0xff}, log);
  }
  return read_text({static_cast<const char*>(data), bytes}, out, log);
}

std::string join_texts(const std::vector<std::string>& texts) {
  std::string joined;
  for (const std::string& text : texts) {
    if (!joined.empty()) joined += kBoundary;
    joined += text;
  }
  return joined;
}

bool lz4_decompress(const uint8_t* source, size_t source_bytes, std::string* out,
                    size_t out_bytes) {
  const uint8_t* in = source;
  const uint8_t* end = source + source_bytes;
  out->clear();
  out->reserve(out_bytes);
  auto length = [&](size_t nibble) -> std::optional<size_t> {
    size_t n = nibble;
    if (nibble != 15) return n;
    for (;;) {
      if (in == end) return std::nullopt;
      uint8_t byte = *in++;
      n += byte;
      if (byte != 255) return n;
    }
  };
  while (in < end) {
    uint8_t token = *in++;
    auto literals = length(token >> 4);
    if (!literals || *literals > static_cast<size_t>(end - in)) return false;
    if (*literals > out_bytes - out->size()) return false;
    out->append(reinterpret_cast<const char*>(in), *literals);
    in += *literals;
    if (in == end) break;  // the last sequence has literals alone
    if (end - in < 2) return false;
    size_t offset = load<uint16_t>(in);
    in += 2;
    auto match = length(token & 15);
    if (!match || offset == 0 || offset > out->size()) return false;
    size_t copy = *match + 4;
    if (copy > out_bytes - out->size()) return false;
    for (size_t from = out->size() - offset; copy > 0; --copy) out->push_back((*out)[from++]);
  }
  return out->size() == out_bytes;
}

}  // namespace softgpu
