// Entry points that link several PTX texts into one image.
// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <iterator>

#include "config.hpp"
#include "function.hpp"
#include "guard.hpp"
#include "jit_options.hpp"

namespace softgpu {
namespace {

/// What a CUlinkState names.
struct Link {
  JitOptions options;
  std::vector<std::string> texts;
  std::string log;
  std::string image;  ///< valid until the link is destroyed
};

HandleTable<Link, CUlinkState, 13>& links() {
  static auto& table = *new HandleTable<Link, CUlinkState, 13>;
  return table;
}

template <class Call>
CUresult with_link(CUlinkState handle, Call&& call) noexcept {
  return with_context([&](Context& context) -> CUresult {
    std::shared_ptr<Link> link = links().find(handle);
    return link ? call(context, *link) : CUDA_ERROR_INVALID_HANDLE;
  });
}

CUresult add(Link& link, CUjitInputType type, const void* data, size_t bytes, const char* name) {
  if (type == CU_JIT_INPUT_CUBIN || type == CU_JIT_INPUT_OBJECT || type == CU_JIT_INPUT_LIBRARY) {
    // An object or library can still be a fat binary with PTX in it; read_image() finds out.
    if (type != CU_JIT_INPUT_CUBIN && data != nullptr && bytes > 0) type = CU_JIT_INPUT_FATBINARY;
  }
  if (type != CU_JIT_INPUT_PTX && type != CU_JIT_INPUT_FATBINARY) {
    link.log += std::string(name ? name : "input") +
                ": the software GPU links PTX, not machine code or NVVM\n";
    link.options.report("", link.log, 0);
    return type == CU_JIT_INPUT_CUBIN ? CUDA_ERROR_NO_BINARY_FOR_GPU : CUDA_ERROR_INVALID_VALUE;
  }
  Image image;
  CUresult r = read_image(data, bytes, config().compute_capability, &image, &link.log);
  if (r != CUDA_SUCCESS) {
    link.options.report("", link.log, 0);
    return type == CU_JIT_INPUT_PTX && r == CUDA_ERROR_INVALID_IMAGE ? CUDA_ERROR_INVALID_PTX : r;
  }
  for (std::string& text : image.texts) link.texts.push_back(std::move(text));
  return CUDA_SUCCESS;
}

CUresult complete(Context& context, Link& link, void** out, size_t* bytes) {
  if (link.texts.empty()) return CUDA_ERROR_INVALID_VALUE;
  // Linked once here, so that what does not resolve is said now and not when it is loaded.
  Image image{link.texts};
  std::shared_ptr<LoadedModule> probe;
  CUresult r = LoadedModule::load(context.device, nullptr, image, &link.log, &probe);
  link.options.report("", r == CUDA_SUCCESS ? "" : link.log, 0);
  if (r != CUDA_SUCCESS) return r;
  link.image = join_texts(link.texts);
  if (out != nullptr) *out = link.image.data();
  if (bytes != nullptr) *bytes = link.image.size() + 1;  // with the NUL that ends a text
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

extern "C" CUresult cuLinkCreate_v2(unsigned int count, CUjit_option* options, void** values,
                                    CUlinkState* out) {
  return with_context([&](Context&) {
    auto link = std::make_shared<Link>();
    link->options = JitOptions(count, options, values);
    if (out == nullptr || !link->options.valid()) return CUDA_ERROR_INVALID_VALUE;
    *out = links().insert(std::move(link));
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuLinkCreate(unsigned int count, CUjit_option* options, void** values,
                                 CUlinkState* out) {
  return cuLinkCreate_v2(count, options, values, out);
}

extern "C" CUresult cuLinkAddData_v2(CUlinkState handle, CUjitInputType type, void* data,
                                     size_t bytes, const char* name, unsigned int, CUjit_option*,
                                     void**) {
  return with_link(handle,
                   [&](Context&, Link& link) { return add(link, type, data, bytes, name); });
}
extern "C" CUresult cuLinkAddData(CUlinkState handle, CUjitInputType type, void* data, size_t bytes,
                                  const char* name, unsigned int count, CUjit_option* options,
                                  void** values) {
  return cuLinkAddData_v2(handle, type, data, bytes, name, count, options, values);
}

extern "C" CUresult cuLinkAddFile_v2(CUlinkState handle, CUjitInputType type, const char* path,
                                     unsigned int, CUjit_option*, void**) {
  return with_link(handle, [&](Context&, Link& link) {
    if (path == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::ifstream file(path, std::ios::binary);
    if (!file) return CUDA_ERROR_FILE_NOT_FOUND;
    std::string bytes(std::istreambuf_iterator<char>(file), {});
    return add(link, type, bytes.data(), bytes.size(), path);
  });
}
extern "C" CUresult cuLinkAddFile(CUlinkState handle, CUjitInputType type, const char* path,
                                  unsigned int count, CUjit_option* options, void** values) {
  return cuLinkAddFile_v2(handle, type, path, count, options, values);
}

extern "C" CUresult cuLinkComplete(CUlinkState handle, void** out, size_t* bytes) {
  return with_link(
      handle, [&](Context& context, Link& link) { return complete(context, link, out, bytes); });
}

extern "C" CUresult cuLinkDestroy(CUlinkState handle) {
  return with_driver(
      [&] { return links().erase(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE; });
}
