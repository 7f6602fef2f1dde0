// Loading an image on a server: by its hash first, its bytes only where the server does not know
// it. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <span>
#include <string>

#include "shim/cuda/jit_options.hpp"
#include "shim/cuda/objects.hpp"

namespace outboard::shim {

struct LoadTarget {
  client::Server* server = nullptr;
  Context* context = nullptr;  ///< null for a library without a current context
  int capability = 0;          ///< of the device, 90 for 9.0
  bool library = false;
  bool image_is_kept = false;  ///< by the program, until it unloads
};

/// The server and device that a load goes to: the current context's, else the first device's.
LoadTarget load_target(bool library);

/// Loads what `image` points at, whose length stands in the image.
CUresult load_image(const LoadTarget& target, const void* image, const JitOptions& options,
                    Module** out);
/// Loads a file's content.
CUresult load_file(const LoadTarget& target, const char* path, const JitOptions& options,
                   Module** out);

/// Sends an image in pieces; the server keeps it under its hash.
CUresult send_image(const LoadTarget& target, const Digest& hash,
                    std::span<const std::byte> content);

/// The kernel of that name, asked for once.
CUresult get_function(Module* module, const char* name, Function** out);
/// The same without asking: the kernel is there, as its module said, but the server's driver loads
/// it only when it is used. Listing a library's thousand kernels must not load them all.
CUresult name_function(Module* module, const std::string& name, Function** out);
/// A variable, asked for once; `managed`: as one that the program may use, where it is a library's.
CUresult get_global(Module* module, const char* name, bool managed, Global* out);
/// A texture or surface reference, asked for once.
CUresult get_reference(Module* module, const char* name, bool surface, TextureReference** out);
/// Names of all kernels.
CUresult list_functions(Module* module, std::vector<std::string>* names);
CUresult unload(Module* module);

/// The kernel of a library that is meant in every context, if the current one's instance has it.
CUresult get_kernel(Module* library, const char* name, Function** out);
/// The library itself, which may be dormant, rather than what it is in the current context.
Module* find_library(CUlibrary value);

/// The context is gone, and what was loaded in it: libraries are dormant from here on.
void forget_modules(const Context* context);

}  // namespace outboard::shim
