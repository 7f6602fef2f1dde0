// How long a module image is, and which members of a fat binary a device can use.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace outboard::shim {

/// The parts of an image in the program's memory: one, or a version 2 wrapper's own container
/// followed by the fat binaries of its list (separate compilation keeps the PTX there).
using ImageParts = std::vector<std::span<const std::byte>>;

/// Finds an image's parts: a fat binary by its wrapper or by its header, an ELF file, or PTX text
/// that ends with NUL. Empty where it is none of these.
ImageParts find_image(const void* image);

/// The container without members that a device of this compute capability (90 for 9.0) cannot use:
/// machine code of another major version or a higher minor one, and PTX above it where there is PTX
/// that is not. All of it where that would leave nothing or the container is not understood.
std::vector<std::byte> usable_members(std::span<const std::byte> container, int capability);

/// What travels: a single part as it is, several packed as docs/internals/wire.md says.
std::vector<std::byte> pack_image(const ImageParts& parts, int capability);

}  // namespace outboard::shim
