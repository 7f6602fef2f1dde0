// Modules loaded into a context, libraries, and the functions in them.
// SPDX-License-Identifier: Apache-2.0
#include "function.hpp"

#include <algorithm>
#include <cstdio>

#include "config.hpp"
#include "context.hpp"
#include "memory_map.hpp"
#include "occupancy.hpp"
#include "texture.hpp"

namespace softgpu {

HandleTable<LoadedModule, CUmodule, 7>& modules() {
  static auto& table = *new HandleTable<LoadedModule, CUmodule, 7>;
  return table;
}
HandleTable<Function, CUfunction, 8>& functions() {
  static auto& table = *new HandleTable<Function, CUfunction, 8>;
  return table;
}
HandleTable<Library, CUlibrary, 9>& libraries() {
  static auto& table = *new HandleTable<Library, CUlibrary, 9>;
  return table;
}
HandleTable<LibraryKernel, CUkernel, 10>& kernels() {
  static auto& table = *new HandleTable<LibraryKernel, CUkernel, 10>;
  return table;
}

Function::Function(std::shared_ptr<LoadedModule> owner, const Kernel* code)
    : module(owner),
      code_owner(owner->code()),
      kernel(code),
      max_dynamic_shared_(std::max(
          0, kSharedPerBlock - static_cast<int>(kernel_info(*code).static_shared_bytes))) {}

CUresult Function::get_attribute(CUfunction_attribute attribute, int* value) const {
  const KernelInfo& k = info();
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *value = static_cast<int>(std::min<uint32_t>(k.max_threads, kMaxThreadsPerBlock));
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
      *value = static_cast<int>(k.static_shared_bytes);
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
      *value = static_cast<int>(k.const_bytes);
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
      *value = static_cast<int>(k.local_bytes);
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
      *value = registers_per_thread(k);
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
      *value = k.target_sm;
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
      *value = config().compute_capability;
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      *value = max_dynamic_shared_.load();
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      *value = carveout_.load();
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
      *value = non_portable_cluster_.load();
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
      *value = cluster_policy_.load();
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA:
    case CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH:
      *value = 0;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult Function::set_attribute(CUfunction_attribute attribute, int value) {
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: {
      int limit = kSharedPerBlockOptIn - static_cast<int>(info().static_shared_bytes);
      if (value < 0 || value > limit) return CUDA_ERROR_INVALID_VALUE;
      max_dynamic_shared_.store(value);
      return CUDA_SUCCESS;
    }
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      if (value < -1 || value > 100) return CUDA_ERROR_INVALID_VALUE;
      carveout_.store(value);
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
      non_portable_cluster_.store(value);
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
      cluster_policy_.store(value);
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult LoadedModule::load(Device& device, Context* context, const Image& image, std::string* log,
                            std::shared_ptr<LoadedModule>* out) {
  CUcontext handle = context ? context->handle : nullptr;
  uint64_t context_id = context ? context->id : 0;
  GlobalAllocator allocator;
  auto ids = std::make_shared<std::map<uint64_t, uint64_t>>();  // address -> allocation
  allocator.allocate = [&device, handle, context_id, ids](uint64_t bytes, uint64_t alignment,
                                                          bool managed) -> uint64_t {
    if (managed) {
      Allocation a = host_memory(bytes, MemoryKind::managed);
      a.context = handle;
      a.context_id = context_id;
      a.of_module = true;
      (*ids)[a.base] = a.base != 0 ? MemoryMap::get().insert(a) : 0;
      return a.base;
    }
    uint64_t base = device.heap.allocate(std::max<uint64_t>(bytes, 1), alignment);
    if (base == 0) return 0;
    std::fill_n(reinterpret_cast<char*>(base), bytes, 0);
    Allocation a;
    a.base = base;
    a.size = std::max<uint64_t>(bytes, 1);
    a.kind = MemoryKind::module;
    a.device = &device;
    a.context = handle;
    a.context_id = context_id;
    (*ids)[base] = MemoryMap::get().insert(std::move(a));
    return base;
  };
  // A context that was destroyed has already freed what its modules held.
  allocator.release = [ids](uint64_t address, uint64_t) {
    auto a = MemoryMap::get().erase_id(address, (*ids)[address]);
    if (a) MemoryMap::release(*a);
  };
  auto views = image.views();
  std::string errors;
  auto code = load_module(views, std::move(allocator), &errors);
  if (!code) {
    if (log != nullptr) *log += errors;
    std::fprintf(stderr, "softgpu: a module was refused: %s\n",
                 errors.substr(0, errors.find('\n')).c_str());
    return CUDA_ERROR_INVALID_PTX;
  }
  auto module = std::make_shared<LoadedModule>();
  module->code_ = std::move(code);
  module->context = handle;
  if (context != nullptr) context->add_module(module);
  *out = std::move(module);
  return CUDA_SUCCESS;
}

CUresult LoadedModule::function(std::string_view name, std::shared_ptr<Function>* out) {
  std::lock_guard lock(mutex_);
  if (auto known = functions_.find(name); known != functions_.end()) {
    *out = known->second;
    return CUDA_SUCCESS;
  }
  std::string error;
  const Kernel* kernel = code_->kernel(name, &error);
  if (kernel == nullptr) {
    if (error.empty()) return CUDA_ERROR_NOT_FOUND;
    std::fprintf(stderr, "softgpu: kernel %.*s: %s\n", static_cast<int>(name.size()), name.data(),
                 error.c_str());
    return CUDA_ERROR_INVALID_PTX;
  }
  auto function = std::make_shared<Function>(shared_from_this(), kernel);
  function->handle = functions().insert(function);
  functions_.emplace(std::string(name), function);
  *out = std::move(function);
  return CUDA_SUCCESS;
}

namespace {

/// A module's reference of that name: made when it is first asked for, gone once it is destroyed.
template <class Handle, class Table>
CUresult find_reference(const Module& code, bool surface, std::string_view name,
                        std::map<std::string, Handle, std::less<>>& known, Table& table,
                        Handle* out) {
  if (const auto found = known.find(name); found != known.end()) {
    *out = found->second;
    return table.find(found->second) ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
  }
  const auto& all = code.references();
  const bool there = std::any_of(all.begin(), all.end(), [&](const ReferenceInfo& one) {
    return one.name == name && one.surface == surface;
  });
  if (!there) return CUDA_ERROR_NOT_FOUND;
  auto reference = std::make_shared<TextureReference>();
  reference->surface = surface;
  reference->of_module = true;
  *out = table.insert(std::move(reference));
  known.emplace(std::string(name), *out);
  return CUDA_SUCCESS;
}

}  // namespace

CUresult LoadedModule::texture(std::string_view name, CUtexref* out) {
  std::lock_guard lock(mutex_);
  return find_reference(*code_, false, name, textures_, texture_references(), out);
}

CUresult LoadedModule::surface(std::string_view name, CUsurfref* out) {
  std::lock_guard lock(mutex_);
  return find_reference(*code_, true, name, surfaces_, surface_references(), out);
}

std::shared_ptr<const TextureView> LoadedModule::view_of(const ReferenceInfo& reference) {
  std::shared_ptr<TextureReference> found;
  CUtexref texture_handle = nullptr;
  CUsurfref surface_handle = nullptr;
  if (!reference.surface && texture(reference.name, &texture_handle) == CUDA_SUCCESS) {
    found = texture_references().find(texture_handle);
  }
  if (reference.surface && surface(reference.name, &surface_handle) == CUDA_SUCCESS) {
    found = surface_references().find(surface_handle);
  }
  return found ? found->view() : std::make_shared<TextureView>();
}

void LoadedModule::unload() {
  if (handle != nullptr) modules().erase(handle);
  std::lock_guard lock(mutex_);
  for (auto& [name, function] : functions_) functions().erase(function->handle);
  functions_.clear();
  for (auto& [name, handle] : textures_) texture_references().erase(handle);
  for (auto& [name, handle] : surfaces_) surface_references().erase(handle);
  textures_.clear();
  surfaces_.clear();
}

CUresult Library::module(Context& context, std::string* log, std::shared_ptr<LoadedModule>* out) {
  std::lock_guard lock(mutex_);
  auto& known = modules_[context.id];
  if (!known) {
    // Modules of contexts that have ended are of no use any more.
    std::erase_if(modules_, [&](const auto& entry) {
      return entry.second && entry.second->handle != nullptr &&
             !::softgpu::modules().find(entry.second->handle);
    });
    std::shared_ptr<LoadedModule> loaded;
    if (auto early = modules_.find(0);
        early != modules_.end() && &context.device == Driver::get().devices[0].get()) {
      // The program knows its managed variables already.
      loaded = std::move(early->second);
      modules_.erase(early);
      loaded->context = context.handle;
      context.add_module(loaded);
    } else if (CUresult r = LoadedModule::load(context.device, &context, image, log, &loaded);
               r != CUDA_SUCCESS) {
      modules_.erase(context.id);
      return r;
    }
    loaded->of_library = true;
    loaded->handle = modules().insert(loaded);
    known = std::move(loaded);
  }
  *out = known;
  return CUDA_SUCCESS;
}

CUresult Library::any_module(std::shared_ptr<LoadedModule>* out) {
  if (auto context = find_context(ContextStack::current())) {
    return module(*context, nullptr, out);
  }
  std::lock_guard lock(mutex_);
  if (modules_.empty()) {  // no context yet: one of its own, on the first device
    std::shared_ptr<LoadedModule> loaded;
    CUresult r = LoadedModule::load(*Driver::get().devices[0], nullptr, image, nullptr, &loaded);
    if (r != CUDA_SUCCESS) return r;
    modules_[0] = std::move(loaded);
  }
  *out = modules_.begin()->second;
  return CUDA_SUCCESS;
}

CUresult Library::kernel(std::string_view name, std::shared_ptr<LibraryKernel>* out) {
  std::shared_ptr<LoadedModule> module;
  if (CUresult r = any_module(&module); r != CUDA_SUCCESS) return r;
  std::lock_guard lock(mutex_);
  if (auto known = kernels_.find(name); known != kernels_.end()) {
    *out = known->second;
    return CUDA_SUCCESS;
  }
  auto names = module->names();
  if (std::find(names.begin(), names.end(), name) == names.end()) return CUDA_ERROR_NOT_FOUND;
  auto kernel = std::make_shared<LibraryKernel>();
  kernel->library = weak_from_this();
  kernel->name = name;
  kernel->handle = kernels().insert(kernel);
  kernels_.emplace(std::string(name), kernel);
  *out = std::move(kernel);
  return CUDA_SUCCESS;
}

void Library::unload() {
  std::lock_guard lock(mutex_);
  for (auto& [id, module] : modules_) {
    module->unload();
  }
  modules_.clear();
  for (auto& [name, kernel] : kernels_) kernels().erase(kernel->handle);
  kernels_.clear();
}

CUresult kernel_function(CUkernel handle, Context& context, std::shared_ptr<Function>* out) {
  std::shared_ptr<LibraryKernel> kernel = kernels().find(handle);
  std::shared_ptr<Library> library = kernel ? kernel->library.lock() : nullptr;
  if (!library) return CUDA_ERROR_INVALID_HANDLE;
  std::shared_ptr<LoadedModule> module;
  if (CUresult r = library->module(context, nullptr, &module); r != CUDA_SUCCESS) return r;
  return module->function(kernel->name, out);
}

CUresult find_function(CUfunction handle, Context& context, std::shared_ptr<Function>* out) {
  *out = functions().find(handle);
  if (*out) return CUDA_SUCCESS;
  return kernel_function(reinterpret_cast<CUkernel>(handle), context, out);
}

}  // namespace softgpu
