// Images tell their own length, and no member that the device could use stays behind.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/image.hpp"

#include <doctest/doctest.h>
#include <elf.h>

#include <cstring>
#include <string>
#include <vector>

#include "wire/image_list.hpp"

using namespace outboard;
using Bytes = std::vector<std::byte>;

namespace {

template <typename T>
void put(Bytes* bytes, size_t at, T value) {
  if (bytes->size() < at + sizeof value) bytes->resize(at + sizeof value);
  std::memcpy(bytes->data() + at, &value, sizeof value);
}

struct Member {
  uint16_t kind;  // 1 PTX, 2 machine code
  uint32_t arch;
};

Bytes container(const std::vector<Member>& members, size_t payload_bytes = 40'000) {
  Bytes bytes(16);
  for (const Member& member : members) {
    const size_t at = bytes.size();
    bytes.resize(at + 0x40 + payload_bytes, std::byte(member.arch));
    put(&bytes, at, member.kind);
    put<uint32_t>(&bytes, at + 4, 0x40);
    put<uint64_t>(&bytes, at + 8, payload_bytes);
    put<uint32_t>(&bytes, at + 0x1c, member.arch);
  }
  put<uint32_t>(&bytes, 0, 0xba55ed50);
  put<uint16_t>(&bytes, 4, 1);
  put<uint16_t>(&bytes, 6, 16);
  put<uint64_t>(&bytes, 8, bytes.size() - 16);
  return bytes;
}

struct Wrapper {
  uint32_t magic = 0x466243b1;
  uint32_t version = 1;
  const void* data = nullptr;
  const void* list = nullptr;
};

bool same(std::span<const std::byte> a, const Bytes& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), b.size()) == 0;
}

}  // namespace

TEST_CASE("text ends with its NUL") {
  const std::string text = "\n.version 7.0\n.target sm_52\n";
  const auto parts = shim::find_image(text.c_str());
  REQUIRE(parts.size() == 1);
  CHECK(parts[0].size() == text.size() + 1);
}

TEST_CASE("a container is as long as its header says, by itself and in a wrapper") {
  const Bytes bytes = container({{1, 80}});
  auto parts = shim::find_image(bytes.data());
  REQUIRE(parts.size() == 1);
  CHECK(parts[0].size() == bytes.size());
  Wrapper wrapper;
  wrapper.data = bytes.data();
  parts = shim::find_image(&wrapper);
  REQUIRE(parts.size() == 1);
  CHECK(parts[0].data() == bytes.data());
}

TEST_CASE("separate compilation's list goes with its container") {
  const Bytes own = container({{2, 80}}, 64), first = container({{1, 80}}, 72),
              second = container({{1, 80}}, 88);
  const void* list[] = {first.data(), second.data(), nullptr};
  Wrapper wrapper;
  wrapper.version = 2;
  wrapper.data = own.data();
  wrapper.list = list;
  const auto parts = shim::find_image(&wrapper);
  REQUIRE(parts.size() == 3);
  const Bytes packed = shim::pack_image(parts, 80);
  REQUIRE(wire::is_image_list(packed));
  const auto read = wire::read_image_list(packed);
  REQUIRE(read.size() == 3);
  CHECK(same(read[0], own));
  CHECK(same(read[1], first));
  CHECK(same(read[2], second));
}

TEST_CASE("a list that is cut or longer than it says is refused") {
  const Bytes part(24, std::byte{1});
  const Bytes list = wire::write_image_list(std::vector<Bytes>{part, part});
  for (size_t cut = 0; cut < list.size(); ++cut) {
    CHECK(wire::read_image_list(std::span(list).first(cut)).empty());
  }
  Bytes longer = list;
  longer.resize(list.size() + 8);
  CHECK(wire::read_image_list(longer).empty());
  Bytes odd = list;
  put<uint64_t>(&odd, 8, ~uint64_t{0});
  CHECK(wire::read_image_list(odd).empty());
}

TEST_CASE("an ELF file ends with its last section or table") {
  Bytes bytes;
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_shoff = 200;
  header.e_shnum = 2;
  header.e_shentsize = sizeof(Elf64_Shdr);
  put(&bytes, 0, header);
  Elf64_Shdr section{};
  section.sh_type = SHT_PROGBITS;
  section.sh_offset = 400;
  section.sh_size = 100;
  put(&bytes, 200, section);
  section.sh_type = SHT_NOBITS;
  section.sh_size = 1 << 20;
  put(&bytes, 264, section);
  bytes.resize(500);
  const auto parts = shim::find_image(bytes.data());
  REQUIRE(parts.size() == 1);
  CHECK(parts[0].size() == 500);
}

TEST_CASE("what is no image is refused") {
  const unsigned char junk[16] = {0x00, 0x01};
  CHECK(shim::find_image(junk).empty());
  CHECK(shim::find_image(nullptr).empty());
  Wrapper wrapper;  // of nothing
  CHECK(shim::find_image(&wrapper).empty());
}

TEST_CASE("machine code of other devices stays behind, PTX that fits does not") {
  const Bytes all = container({{2, 75}, {2, 80}, {2, 86}, {2, 90}, {1, 80}, {1, 120}});
  const auto is = [](const Bytes& bytes, const std::vector<Member>& members) {
    return same(bytes, container(members));
  };
  CHECK(is(shim::usable_members(all, 80), {{2, 80}, {1, 80}}));
  CHECK(is(shim::usable_members(all, 86), {{2, 80}, {2, 86}, {1, 80}}));
  CHECK(is(shim::usable_members(all, 120), {{1, 80}, {1, 120}}));
  const Bytes high = container({{2, 90}, {1, 120}});
  CHECK(is(shim::usable_members(high, 80), {{1, 120}}));  // the driver decides
}

TEST_CASE("in doubt everything goes") {
  const Bytes foreign = container({{2, 75}, {2, 90}});
  CHECK(same(shim::usable_members(foreign, 80), foreign));
  const Bytes lto = container({{8, 90}, {2, 90}});
  CHECK(shim::usable_members(lto, 80).size() > 40'000);
  Bytes odd = container({{2, 75}, {1, 80}});
  put<uint32_t>(&odd, 16 + 4, 0);
  put<uint64_t>(&odd, 16 + 8, 0);
  CHECK(same(shim::usable_members(odd, 80), odd));
}
