// Texels as values: formats, edges, mixing.
// SPDX-License-Identifier: Apache-2.0
#include "textures.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cstring>
#include <vector>

namespace softgpu {
namespace {

struct Picture {
  std::vector<unsigned char> bytes;
  TextureView view;

  template <class T>
  Picture(TexelFormat format, uint8_t channels, uint32_t width, uint32_t height,
          const std::vector<T>& values)
      : bytes(values.size() * sizeof(T)) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    view.base = 1;  // memory begins there
    view.format = format;
    view.channels = channels;
    view.extent = {width, height, 1};
    view.row_bytes = uint64_t{width} * view.texel_bytes();
  }
  bool at(const TexturePlace& place, Texel* out) {
    const auto read = [](void* context, uint64_t address, uint32_t count, void* to) {
      const auto& all = *static_cast<std::vector<unsigned char>*>(context);
      if (address - 1 + count > all.size()) return false;
      std::memcpy(to, all.data() + address - 1, count);
      return true;
    };
    return sample(view, place, {read, &bytes}, out);
  }
  float value(float x, float y = 0.5F, size_t channel = 0) {
    TexturePlace place;
    place.dimensions = 2;
    place.at = {x, y, 0};
    Texel texel{};
    REQUIRE(at(place, &texel));
    return std::bit_cast<float>(texel[channel]);
  }
};

TEST_CASE("small integers are parts of 1, or themselves") {
  Picture bytes(TexelFormat::u8, 4, 2, 1, std::vector<uint8_t>{0, 4, 128, 255, 1, 2, 3, 4});
  CHECK(bytes.value(0.5F, 0.5F, 3) == 1.0F);
  CHECK(bytes.value(0.5F, 0.5F, 1) == 4.0F / 255.0F);
  Picture with_sign(TexelFormat::s8, 1, 3, 1, std::vector<int8_t>{-128, -127, 127});
  CHECK(with_sign.value(0.5F) == -1.0F);
  CHECK(with_sign.value(1.5F) == -1.0F);
  CHECK(with_sign.value(2.5F) == 1.0F);
  CHECK(with_sign.value(2.5F, 0.5F, 3) == 0.0F);
  with_sign.view.integers = true;
  CHECK(std::bit_cast<int32_t>(with_sign.value(0.5F)) == -128);
  Picture wide(TexelFormat::u16, 1, 1, 1, std::vector<uint16_t>{0x0400});
  CHECK(wide.value(0.5F) == doctest::Approx(0.0156252));
  Picture half(TexelFormat::f16, 1, 1, 1, std::vector<uint16_t>{0x0400});
  CHECK(half.value(0.5F) == 0x1p-14F);
}

TEST_CASE("beyond the edge is the edge, a colour, or the other side") {
  Picture row(TexelFormat::f32, 1, 4, 1, std::vector<float>{10, 11, 12, 13});
  CHECK(row.value(-3) == 10);
  CHECK(row.value(9) == 13);
  CHECK(row.value(std::bit_cast<float>(0x7fc00000U)) == 10);
  row.view.edges[0] = Edge::border;
  row.view.border[0] = 5;
  CHECK(row.value(-0.1F) == 5);
  row.view.edges[0] = Edge::wrap;
  CHECK(row.value(5.5F) == 13);  // places that are not normalized cannot go around
  row.view.normalized = true;
  CHECK(row.value(1.3F) == 11);
  CHECK(row.value(-0.1F) == 13);
  row.view.edges[0] = Edge::mirror;
  CHECK(row.value(1.3F) == 12);
  CHECK(row.value(-0.3F) == 11);
}

TEST_CASE("neighbours are mixed by their distance, in 256 steps") {
  Picture square(TexelFormat::f32, 1, 2, 2, std::vector<float>{0, 256, 512, 768});
  square.view.mixes = true;
  CHECK(square.value(1, 0.5F) == 128);
  CHECK(square.value(1, 1) == 384);
  CHECK(square.value(0.5F + 1.4F / 256, 0.5F) == 1);
  CHECK(square.value(0, 0) == 0);
}

TEST_CASE("linear memory ends in zeros, and memory that is gone is told") {
  Picture line(TexelFormat::u32, 1, 3, 1, std::vector<uint32_t>{7, 8, 9});
  line.view.memory = true;
  TexturePlace place;
  place.whole = true;
  Texel texel{};
  for (const auto& [index, value] : {std::pair{2, 9U}, std::pair{3, 0U}, std::pair{-1, 0U}}) {
    place.index[0] = index;
    REQUIRE(line.at(place, &texel));
    CHECK(texel[0] == value);
  }
  line.view.extent[0] = 4;
  place.index[0] = 3;
  CHECK(!line.at(place, &texel));
  line.view.base = 0;
  CHECK(line.at(place, &texel));
  CHECK(texel[0] == 0);
}

}  // namespace
}  // namespace softgpu
