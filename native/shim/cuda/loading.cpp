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
#include "shim/cuda/managed_memory.hpp"

namespace outboard::shim {
namespace {

// Header of calls about this module: the context that it was loaded in.
uint32_t context_index(const Module* module) {
  return module->home != nullptr ? module->home->head.index : 0;
}

LoadTarget target_in(Context* context, bool library) {
  LoadTarget target;
  const Device* device = context != nullptr ? context->device : devices[0];
  target.server = device->server;
  target.context = context;
  target.library = library;
  target.capability = 10 * device->attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
                      device->attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  return target;
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

// What of a library's image has to be kept for loading it elsewhere.
void keep_image(Module* module, const LoadTarget& target, const ImageParts& parts,
                const void* image) {
  module->image = target.image_is_kept ? image : nullptr;
  if (!target.library || module->image != nullptr || device_count == 1) return;
  for (const auto& part : parts) module->parts.emplace_back(part.begin(), part.end());
}

// The content of a library's image that a device of this capability is sent; empty: not kept.
std::vector<std::byte> kept_image(const Module* library, int capability) {
  if (library->image != nullptr) return pack_image(find_image(library->image), capability);
  if (library->parts.empty()) return {};
  return pack_image(ImageParts(library->parts.begin(), library->parts.end()), capability);
}

CUresult load_content(const LoadTarget& target, std::span<const std::byte> content,
                      const ImageParts& parts, const void* image, const JitOptions& options,
                      Module** out) {
  const Digest hash = sha256(content);
  Module* module = modules.take();
  if (module == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  module->server = target.server;
  module->context = target.library ? nullptr : target.context;
  module->home = target.context;
  module->hash = hash;
  module->capability = target.capability;
  keep_image(module, target, parts, image);
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

// Loads a library once more, under `module`'s name. With the library's mutex held.
CUresult load_again(const Module* library, Module* module, const LoadTarget& target) {
  const JitOptions options;
  std::vector<std::byte> content;
  Digest hash = library->hash;
  if (target.capability != library->capability) {
    content = kept_image(library, target.capability);
    if (!content.empty()) hash = sha256(content);
  }
  client::Answer<wire::command::ModuleLoad> answer;
  CUresult result = ask_to_load(target, module, hash, options, &answer);
  if (result == CUDA_ERROR_FILE_NOT_FOUND) {
    if (content.empty()) content = kept_image(library, target.capability);
    if (content.empty()) return result;
    result = send_image(target, hash, content);
    if (result == CUDA_SUCCESS) result = ask_to_load(target, module, hash, options, &answer);
  }
  if (result == CUDA_SUCCESS) module->kernels = answer.reply.kernels;
  return result;
}

// The dormant library in a context, which is its home from now on; null: it cannot be loaded.
Module* awakened(Module* module, Context* context) {
  modules.rename(module);
  const LoadTarget target = target_in(context, true);
  module->server = target.server;
  const CUresult result = load_again(module, module, target);
  if (result != CUDA_SUCCESS) {
    say("a library of the program could not be loaded again after its context had been reset (%d)",
        static_cast<int>(result));
    return nullptr;
  }
  module->home = context;
  modules.wake(module);
  return module;
}

// What a library is in a context that is not its home; null: it cannot be loaded there.
Module* instance_in(Module* library, Context* context) {
  for (const auto& [name, global] : library->globals) {
    if (!global.managed) continue;
    say("the program has a managed variable (%s), and a library with one is of the context that "
        "used "
        "it first, on device %d; to use another device alone, make it the first: "
        "CUDA_VISIBLE_DEVICES=%d",
        name.c_str(), library->home->device->ordinal, context->device->ordinal);
    return nullptr;
  }
  Module* module = modules.take();
  if (module == nullptr) return nullptr;
  const LoadTarget target = target_in(context, true);
  module->server = target.server;
  module->context = module->home = context;
  module->library = library;
  const CUresult result = load_again(library, module, target);
  if (result != CUDA_SUCCESS) {
    say("a library of the program could not be loaded for device %d (%d)", context->device->ordinal,
        static_cast<int>(result));
    modules.give(module);
    return nullptr;
  }
  library->instances.emplace(context, module);
  return module;
}

// The function, brought to the server where it is dormant; its module is there. Null: it cannot be.
Function* awakened(Function* function) {
  if (function->head.live.load() == client::slot_live) return function;
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
  Context* context = thread_state.current;
  if (context != nullptr && context->destroyed.load()) context = nullptr;
  // A library needs no current context, but the server loads it in one.
  if (context == nullptr && library) primary_context(devices[0], &context);
  return target_in(context, library);
}

CUresult load_image(const LoadTarget& target, const void* image, const JitOptions& options,
                    Module** out) {
  const ImageParts parts = find_image(image);
  if (parts.empty()) return CUDA_ERROR_INVALID_IMAGE;
  return load_content(target, pack_image(parts, target.capability), parts, image, options, out);
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
  return load_content(target, content, {content}, nullptr, options, out);
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

CUresult get_global(Module* module, const char* name, bool managed, Global* out) {
  const std::lock_guard guard(module->mutex);
  auto found = module->globals.find(name);
  if (found == module->globals.end()) {
    if (std::strlen(name) > wire::max_inline_bytes) return CUDA_ERROR_NOT_FOUND;
    client::Answer<wire::command::ModuleGetGlobal> answer;
    module->server->connection().call(
        wire::command::ModuleGetGlobal{
            .module = module->head.id(), .managed = managed, .name = name},
        context_index(module), &answer);
    if (answer.result != client::result::success) return to_cuda(answer.result);
    Range range;
    range.base = answer.reply.address;
    range.bytes = answer.reply.bytes;
    range.context = module->home;
    range.device = module->home->device;
    range.kind = MemoryKind::global;
    const Global global{range.base, range.bytes, answer.reply.managed != 0};
    if (!global.managed) {
      addresses().add(range);
    } else if (const CUresult result = adopt_variable(range); result != CUDA_SUCCESS) {
      return result;
    }
    found = module->globals.emplace(name, global).first;
  }
  *out = found->second;
  return CUDA_SUCCESS;
}

CUresult get_reference(Module* module, const char* name, bool surface, TextureReference** out) {
  const std::lock_guard guard(module->mutex);
  const auto known = module->references.find({surface, name});
  if (known != module->references.end()) {
    *out = known->second;
    return CUDA_SUCCESS;
  }
  if (std::strlen(name) > wire::max_inline_bytes) return CUDA_ERROR_NOT_FOUND;
  TextureReference* reference = texture_references.take();
  if (reference == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  client::Answer<wire::command::ModuleGetReference> answer;
  module->server->connection().call(
      wire::command::ModuleGetReference{.module = module->head.id(),
                                        .reference = reference->head.id(),
                                        .surface = surface ? 1u : 0u,
                                        .name = name},
      context_index(module), &answer);
  if (answer.result != client::result::success) {
    texture_references.give(reference);
    return to_cuda(answer.result);
  }
  reference->context = module->home;
  reference->module = module;
  reference->surface = surface;
  module->references.emplace(std::make_pair(surface, name), reference);
  *out = reference;
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

namespace {

void forget_globals(Module* module) {
  for (const auto& [name, global] : module->globals) {
    addresses().remove(global.address, MemoryKind::global, MemoryKind::managed, nullptr);
    if (global.managed) release_variable(global.address);
  }
  module->globals.clear();
}

}  // namespace

void forget_modules(const Context* context) {
  modules.for_each([context](Module* module) {
    if (module->home != context) return;
    if (module->context != nullptr) {
      if (module->library != nullptr) {
        const std::lock_guard guard(module->library->mutex);
        module->library->instances.erase(context);
      }
      forget_globals(module);
      for (const auto& [name, function] : module->functions) functions.give(function);
      modules.give(module);
      return;
    }
    const std::lock_guard guard(module->mutex);
    for (const auto& [name, function] : module->functions) functions.make_dormant(function);
    forget_globals(module);
    module->references.clear();  // their context gives them
    module->home = nullptr;
    modules.make_dormant(module);
  });
}

Module* find_library(CUlibrary value) {
  Module* module = modules.find(value);
  if (module == nullptr) module = modules.find_dormant(value);
  return module != nullptr && module->context == nullptr ? module : nullptr;
}

Module* module_in(const void* value, Context* context) {
  Module* module = modules.find(value);
  if (module == nullptr) module = modules.find_dormant(value);
  if (module == nullptr || module->context != nullptr) return module;
  const auto is_live = [module] { return module->head.live.load() == client::slot_live; };
  const std::lock_guard guard(module->mutex);
  if (context == nullptr || context->destroyed.load()) return is_live() ? module : nullptr;
  if (is_live() && module->home == context) return module;
  if (const auto found = module->instances.find(context); found != module->instances.end()) {
    return found->second;
  }
  return is_live() ? instance_in(module, context) : awakened(module, context);
}

CUresult get_kernel(Module* library, const char* name, Function** out) {
  Module* here = module_in(library, thread_state.current);
  if (here == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const CUresult result = get_function(here, name, out);
  return result == CUDA_SUCCESS && here != library ? name_function(library, name, out) : result;
}

Function* function_in(const void* value, Context* context) {
  Function* function = functions.find(value);
  if (function == nullptr) function = functions.find_dormant(value);
  if (function == nullptr) return nullptr;
  Module* here = module_in(function->module, context);
  if (here == nullptr) return nullptr;
  if (here == function->module) return awakened(function);
  Function* instance = nullptr;
  return get_function(here, function->name.c_str(), &instance) == CUDA_SUCCESS ? awakened(instance)
                                                                               : nullptr;
}

CUresult unload(Module* module) {
  std::map<const Context*, Module*> instances;
  {
    const std::lock_guard guard(module->mutex);
    instances.swap(module->instances);
  }
  for (const auto& [context, instance] : instances) unload(instance);
  forget_globals(module);
  CUresult result = CUDA_SUCCESS;
  if (module->head.live.load() == client::slot_live) {  // a dormant one is nowhere else
    client::Answer<wire::command::ModuleUnload> answer;
    module->server->connection().call(wire::command::ModuleUnload{.module = module->head.id()},
                                      context_index(module), &answer);
    result = to_cuda(answer.result);
  }
  for (const auto& [name, function] : module->functions) functions.give(function);
  for (const auto& [name, reference] : module->references) texture_references.give(reference);
  modules.give(module);
  return result;
}

}  // namespace outboard::shim
