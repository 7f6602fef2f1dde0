// Reading image headers; nothing here trusts more of an image than the program's own driver would.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/image.hpp"

#include <elf.h>

#include <algorithm>
#include <cstring>

#include "wire/image_list.hpp"

namespace outboard::shim {
namespace {

constexpr uint32_t wrapper_magic = 0x466243b1;
constexpr uint32_t container_magic = 0xba55ed50;
constexpr size_t container_header_bytes = 16;
constexpr size_t member_header_bytes = 0x40;
constexpr size_t filter_above_bytes = 64u << 10;

struct Wrapper {
  uint32_t magic;
  uint32_t version;
  const void* data;
  const void* list;  // version 2: containers, ended by null
};

template <typename T>
T load(const void* at, size_t offset = 0) {
  T value;
  std::memcpy(&value, static_cast<const std::byte*>(at) + offset, sizeof value);
  return value;
}

std::span<const std::byte> bytes_at(const void* at, size_t bytes) {
  return {static_cast<const std::byte*>(at), bytes};
}

std::span<const std::byte> container_at(const void* at) {
  if (at == nullptr || load<uint32_t>(at) != container_magic) return {};
  const size_t header = load<uint16_t>(at, 6);
  return bytes_at(at, header + load<uint64_t>(at, 8));
}

// The end of the last table or section.
size_t elf_bytes(const void* at) {
  const auto header = load<Elf64_Ehdr>(at);
  size_t end = sizeof header;
  if (header.e_ident[EI_CLASS] != ELFCLASS64) return 0;
  end = std::max<size_t>(end, header.e_shoff + size_t{header.e_shnum} * header.e_shentsize);
  end = std::max<size_t>(end, header.e_phoff + size_t{header.e_phnum} * header.e_phentsize);
  for (unsigned i = 0; i < header.e_shnum && header.e_shentsize >= sizeof(Elf64_Shdr); ++i) {
    const auto section = load<Elf64_Shdr>(at, header.e_shoff + size_t{i} * header.e_shentsize);
    if (section.sh_type != SHT_NOBITS) {
      end = std::max<size_t>(end, section.sh_offset + section.sh_size);
    }
  }
  return end;
}

struct Member {
  uint16_t kind = 0;
  int arch = 0;
  std::span<const std::byte> whole;
};
constexpr uint16_t kind_ptx = 1;
constexpr uint16_t kind_elf = 2;

bool read_members(std::span<const std::byte> container, std::vector<Member>* members) {
  if (container.size() < container_header_bytes) return false;
  for (size_t at = load<uint16_t>(container.data(), 6); at != container.size();) {
    if (container.size() - at < member_header_bytes) return false;
    const std::byte* header = container.data() + at;
    const size_t whole = load<uint32_t>(header, 4) + load<uint64_t>(header, 8);
    if (whole < member_header_bytes || whole > container.size() - at) return false;
    members->push_back({load<uint16_t>(header), static_cast<int>(load<uint32_t>(header, 0x1c)),
                        container.subspan(at, whole)});
    at += whole;
  }
  return true;
}

}  // namespace

ImageParts find_image(const void* image) {
  ImageParts parts;
  if (image == nullptr) return parts;
  // Text may be as short as its NUL: its first byte is looked at alone.
  const auto* text = static_cast<const char*>(image);
  const auto first = static_cast<unsigned char>(text[0]);
  if (first == 0xb1 && load<uint32_t>(image) == wrapper_magic) {
    const auto wrapper = load<Wrapper>(image);
    const auto own = container_at(wrapper.data);
    if (own.empty()) return parts;
    parts.push_back(own);
    if (wrapper.version < 2 || wrapper.list == nullptr) return parts;
    const auto* list = static_cast<const void* const*>(wrapper.list);
    for (; *list != nullptr; ++list) {
      const void* entry = *list;
      if (load<uint32_t>(entry) == wrapper_magic) entry = load<Wrapper>(entry).data;
      const auto container = container_at(entry);
      if (!container.empty()) parts.push_back(container);
    }
  } else if (first == 0x50 && load<uint32_t>(image) == container_magic) {
    parts.push_back(container_at(image));
  } else if (first == 0x7f && std::memcmp(image, ELFMAG, SELFMAG) == 0) {
    const size_t bytes = elf_bytes(image);
    if (bytes != 0) parts.push_back(bytes_at(image, bytes));
  } else if (first == '\n' || first == '\r' || first == '\t' || (first >= ' ' && first < 0x7f)) {
    parts.push_back(bytes_at(image, std::strlen(text) + 1));
  }
  return parts;
}

std::vector<std::byte> usable_members(std::span<const std::byte> container, int capability) {
  std::vector<std::byte> all(container.begin(), container.end());
  std::vector<Member> members;
  if (container.size() <= filter_above_bytes || !read_members(container, &members)) return all;
  const bool low_ptx = std::any_of(members.begin(), members.end(), [&](const Member& member) {
    return member.kind == kind_ptx && member.arch <= capability;
  });
  std::vector<std::byte> kept(all.begin(), all.begin() + load<uint16_t>(container.data(), 6));
  const size_t header = kept.size();
  for (const Member& member : members) {
    const bool fits = member.arch / 10 == capability / 10 && member.arch <= capability;
    if (member.kind == kind_elf && !fits) continue;
    if (member.kind == kind_ptx && low_ptx && member.arch > capability) continue;
    kept.insert(kept.end(), member.whole.begin(), member.whole.end());
  }
  if (kept.size() == header) return all;  // the driver says best why nothing fits
  const uint64_t body = kept.size() - header;
  std::memcpy(kept.data() + 8, &body, sizeof body);
  return kept;
}

std::vector<std::byte> pack_image(const ImageParts& parts, int capability) {
  std::vector<std::vector<std::byte>> contents;
  for (const auto& part : parts) {
    const bool container = part.size() >= 4 && load<uint32_t>(part.data()) == container_magic;
    contents.push_back(container ? usable_members(part, capability)
                                 : std::vector<std::byte>(part.begin(), part.end()));
  }
  if (contents.size() == 1) return std::move(contents.front());
  return wire::write_image_list(contents);
}

}  // namespace outboard::shim
