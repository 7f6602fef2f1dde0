// Images, kernels and variables on the server.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/loading.hpp"

#include <cstdio>
#include <cstring>

#include "base/log.hpp"
#include "base/sha256.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/image.hpp"

namespace outboard::shim {
namespace {

// Header of calls about this module: its context, or for a library the current one, if any.
uint32_t context_index(const Module* module) {
  const Context* context = module->context != nullptr ? module->context : thread_state.current;
  return context != nullptr && context->server == module->server ? context->head.index : 0;
}

CUresult ask_to_load(const LoadTarget& target, const Module* module, const Digest& hash,
                     const JitOptions& options, client::Answer<wire::command::ModuleLoad>* answer) {
  wire::command::ModuleLoad command;
  command.module = module->head.id();
  command.library = target.library ? 1 : 0;
  command.hash = hash;
  command.options = options.pairs();
  target.server->connection().call(
      command, target.context != nullptr ? target.context->head.index : 0, answer);
  return to_cuda(answer->result);
}

CUresult load_content(const LoadTarget& target, std::span<const std::byte> content,
                      const void* image, const JitOptions& options, Module** out) {
  const Digest hash = sha256(content);
  Module* module = modules.take();
  if (module == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  module->server = target.server;
  module->context = target.library ? nullptr : target.context;
  module->home = target.context;
  module->hash = hash;
  module->image = target.image_is_kept ? image : nullptr;
  client::Answer<wire::command::ModuleLoad> answer;
  CUresult result = ask_to_load(target, module, hash, options, &answer);
  if (result == CUDA_ERROR_FILE_NOT_FOUND) {
    result = send_image(target, hash, content);
    if (result == CUDA_SUCCESS) result = ask_to_load(target, module, hash, options, &answer);
  }
  if (answer.result != client::result::lost) {
    options.write(answer.reply.info_log, answer.reply.error_log, answer.reply.wall_time);
  }
  if (result != CUDA_SUCCESS) {
    modules.give(module);
    return result;
  }
  module->kernels = answer.reply.kernels;
  *out = module;
  return CUDA_SUCCESS;
}

void take_layout(Function* function, const wire::command::ModuleGetFunction::Reply& reply) {
  const size_t count = reply.offsets_sizes.size() / 2;
  function->parameter_count = static_cast<uint32_t>(count);
  function->parameters.reset(new Function::Parameter[count]);
  for (size_t i = 0; i < count; ++i) {
    function->parameters[i] = {reply.offsets_sizes[2 * i], reply.offsets_sizes[2 * i + 1]};
    function->parameters_bytes = std::max(
        function->parameters_bytes, function->parameters[i].offset + function->parameters[i].bytes);
  }
  for (size_t i = 0; i < reply.attributes.size() && i < function->attributes.size(); ++i) {
    function->attributes[i].store(static_cast<int>(reply.attributes[i]), std::memory_order_relaxed);
  }
}

}  // namespace

CUresult send_image(const LoadTarget& target, const Digest& hash,
                    std::span<const std::byte> content) {
  for (size_t offset = 0; offset < content.size(); offset += wire::max_image_piece_bytes) {
    wire::command::ModuleImage piece;
    piece.hash = hash;
    piece.total_bytes = content.size();
    piece.offset = offset;
    piece.content =
        content.subspan(offset, std::min(wire::max_image_piece_bytes, content.size() - offset));
    const CUresult result = to_cuda(target.server->connection().send(piece, 0));
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

LoadTarget load_target(bool library) {
  LoadTarget target;
  Context* context = thread_state.current;
  if (context != nullptr && context->destroyed.load()) context = nullptr;
  // A library needs no current context, but the server loads it in one.
  if (context == nullptr && library) primary_context(devices[0], &context);
  const Device* device = context != nullptr ? context->device : devices[0];
  target.server = device->server;
  target.context = context;
  target.library = library;
  target.capability = 10 * device->attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
                      device->attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  return target;
}

CUresult load_image(const LoadTarget& target, const void* image, const JitOptions& options,
                    Module** out) {
  const ImageParts parts = find_image(image);
  if (parts.empty()) return CUDA_ERROR_INVALID_IMAGE;
  return load_content(target, pack_image(parts, target.capability), image, options, out);
}

CUresult load_file(const LoadTarget& target, const char* path, const JitOptions& options,
                   Module** out) {
  FILE* file = std::fopen(path, "rbe");
  if (file == nullptr) return CUDA_ERROR_FILE_NOT_FOUND;
  std::vector<std::byte> content;
  std::byte piece[16384];
  while (const size_t count = std::fread(piece, 1, sizeof piece, file)) {
    content.insert(content.end(), piece, piece + count);
  }
  std::fclose(file);
  if (content.empty()) return CUDA_ERROR_INVALID_IMAGE;
  const bool text = content[0] != std::byte{0x7f} && content[0] != std::byte{0x50};
  if (text && content.back() != std::byte{0}) content.push_back(std::byte{0});
  return load_content(target, content, nullptr, options, out);
}

CUresult get_function(Module* module, const char* name, Function** out) {
  const std::lock_guard guard(module->mutex);
  const auto found = module->functions.find(name);
  if (found != module->functions.end()) {
    *out = found->second;  // where it is dormant, its first use brings it to the server
    return CUDA_SUCCESS;
  }
  if (std::strlen(name) > wire::max_inline_bytes) return CUDA_ERROR_NOT_FOUND;
  Function* function = functions.take();
  if (function == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  function->module = module;
  function->name = name;
  client::Answer<wire::command::ModuleGetFunction> answer;
  module->server->connection().call(
      wire::command::ModuleGetFunction{
          .module = module->head.id(), .function = function->head.id(), .name = name},
      context_index(module), &answer);
  if (answer.result != client::result::success) {
    functions.give(function);
    return to_cuda(answer.result);
  }
  take_layout(function, answer.reply);
  module->functions.emplace(name, function);
  *out = function;
  return CUDA_SUCCESS;
}

CUresult name_function(Module* module, const std::string& name, Function** out) {
  const std::lock_guard guard(module->mutex);
  const auto found = module->functions.find(name);
  if (found != module->functions.end()) {
    *out = found->second;
    return CUDA_SUCCESS;
  }
  Function* function = functions.take();
  if (function == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  function->module = module;
  function->name = name;
  functions.make_dormant(function);
  module->functions.emplace(name, function);
  *out = function;
  return CUDA_SUCCESS;
}

CUresult get_global(Module* module, const char* name, CUdeviceptr* address, size_t* bytes) {
  const std::lock_guard guard(module->mutex);
  auto found = module->globals.find(name);
  if (found == module->globals.end()) {
    if (std::strlen(name) > wire::max_inline_bytes) return CUDA_ERROR_NOT_FOUND;
    client::Answer<wire::command::ModuleGetGlobal> answer;
    module->server->connection().call(
        wire::command::ModuleGetGlobal{.module = module->head.id(), .name = name},
        context_index(module), &answer);
    if (answer.result != client::result::success) return to_cuda(answer.result);
    Context* context = module->context != nullptr ? module->context : thread_state.current;
    Range range;
    range.base = answer.reply.address;
    range.bytes = answer.reply.bytes;
    range.context = context;
    range.device = context != nullptr ? context->device : devices[0];
    range.kind = MemoryKind::global;
    addresses().add(range);
    found = module->globals.emplace(name, std::make_pair(answer.reply.address, answer.reply.bytes))
                .first;
  }
  if (address != nullptr) *address = found->second.first;
  if (bytes != nullptr) *bytes = found->second.second;
  return CUDA_SUCCESS;
}

CUresult list_functions(Module* module, std::vector<std::string>* names) {
  client::Answer<wire::command::ModuleListFunctions> answer;
  module->server->connection().call(wire::command::ModuleListFunctions{.module = module->head.id()},
                                    context_index(module), &answer);
  if (answer.result != client::result::success) return to_cuda(answer.result);
  for (std::string_view rest = answer.reply.names; !rest.empty();) {
    const size_t end = std::min(rest.find('\0'), rest.size());
    names->emplace_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return CUDA_SUCCESS;
}

void sleep_libraries(const Context* home) {
  modules.for_each([home](Module* module) {
    if (module->context != nullptr || module->home != home) return;
    const std::lock_guard guard(module->mutex);
    for (const auto& [name, function] : module->functions) functions.make_dormant(function);
    module->globals.clear();
    modules.make_dormant(module);
  });
}

Module* awaken_module(const void* value) {
  Module* module = modules.find_dormant(value);
  Context* context = thread_state.current;
  if (module == nullptr || context == nullptr || context->destroyed.load() ||
      context->server != module->server) {
    return nullptr;
  }
  const std::lock_guard guard(module->mutex);
  if (module->head.live.load() == client::slot_live) return module;  // another thread did it
  modules.rename(module);
  LoadTarget target = load_target(true);
  const JitOptions options;
  client::Answer<wire::command::ModuleLoad> answer;
  CUresult result = ask_to_load(target, module, module->hash, options, &answer);
  if (result == CUDA_ERROR_FILE_NOT_FOUND && module->image != nullptr) {
    const auto content = pack_image(find_image(module->image), target.capability);
    result = send_image(target, module->hash, content);
    if (result == CUDA_SUCCESS)
      result = ask_to_load(target, module, module->hash, options, &answer);
  }
  if (result != CUDA_SUCCESS) {
    say("a library of the program could not be loaded again after its context had been reset (%d)",
        static_cast<int>(result));
    return nullptr;
  }
  module->home = target.context;
  modules.wake(module);
  return module;
}

Function* awaken_function(const void* value) {
  Function* function = functions.find_dormant(value);
  if (function == nullptr || find_module(function->module) == nullptr) return nullptr;
  const std::lock_guard guard(function->module->mutex);
  if (function->head.live.load() == client::slot_live) return function;
  functions.rename(function);
  client::Answer<wire::command::ModuleGetFunction> answer;
  function->module->server->connection().call(
      wire::command::ModuleGetFunction{.module = function->module->head.id(),
                                       .function = function->head.id(),
                                       .name = function->name},
      context_index(function->module), &answer);
  if (answer.result != client::result::success) return nullptr;
  if (function->parameters == nullptr) {
    // It was named when the module's functions were listed, and is used for the first time.
    take_layout(function, answer.reply);
    functions.wake(function);
    return function;
  }
  functions.wake(function);
  // What the program had set stays set.
  constexpr CUfunction_attribute settable[] = {CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                               CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT};
  for (const CUfunction_attribute attribute : settable) {
    const int value = function->attributes[attribute].load();
    if (static_cast<size_t>(attribute) < answer.reply.attributes.size() &&
        static_cast<int>(answer.reply.attributes[attribute]) != value) {
      function->module->server->connection().send(
          wire::command::FunctionSetAttribute{.function = function->head.id(),
                                              .attribute = static_cast<uint32_t>(attribute),
                                              .value = value},
          context_index(function->module));
    }
  }
  return function;
}

CUresult unload(Module* module) {
  for (const auto& [name, place] : module->globals) {
    addresses().remove(place.first, MemoryKind::global, MemoryKind::global, nullptr);
  }
  client::Answer<wire::command::ModuleUnload> answer;
  module->server->connection().call(wire::command::ModuleUnload{.module = module->head.id()},
                                    context_index(module), &answer);
  for (const auto& [name, function] : module->functions) functions.give(function);
  modules.give(module);
  return to_cuda(answer.result);
}

}  // namespace outboard::shim
