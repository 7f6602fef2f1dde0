// Modules loaded into a context, libraries, and the functions in them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "../engine/engine.hpp"
#include "api.hpp"
#include "handles.hpp"
#include "image.hpp"

namespace softgpu {

class Context;
class Device;
class LoadedModule;

/// A kernel in one context: what a CUfunction names.
class Function {
 public:
  Function(std::shared_ptr<LoadedModule> owner, const Kernel* code);
  CUresult get_attribute(CUfunction_attribute attribute, int* value) const;
  CUresult set_attribute(CUfunction_attribute attribute, int value);
  const KernelInfo& info() const { return kernel_info(*kernel); }
  int max_dynamic_shared() const { return max_dynamic_shared_.load(); }

  const std::weak_ptr<LoadedModule> module;
  const std::shared_ptr<softgpu::Module> code_owner;  ///< keeps `kernel` alive
  const Kernel* const kernel;
  CUfunction handle = nullptr;

 private:
  std::atomic<int> max_dynamic_shared_;
  std::atomic<int> carveout_{-1};
  std::atomic<int> cluster_policy_{0};
  std::atomic<int> non_portable_cluster_{0};
};

/// A module in one context: what a CUmodule names.
class LoadedModule : public std::enable_shared_from_this<LoadedModule> {
 public:
  /// `device` holds its globals. Appends what went wrong to `log`.
  static CUresult load(Device& device, Context* context, const Image& image, std::string* log,
                       std::shared_ptr<LoadedModule>* out);

  CUresult function(std::string_view name, std::shared_ptr<Function>* out);
  std::vector<std::string> names() const { return code_->kernel_names(); }
  const GlobalInfo* global(std::string_view name) const { return code_->global(name); }
  /// Its texture or surface reference of that name.
  CUresult texture(std::string_view name, CUtexref* out);
  CUresult surface(std::string_view name, CUsurfref* out);
  /// What a kernel gets that names a reference now.
  std::shared_ptr<const TextureView> view_of(const ReferenceInfo& reference);
  std::shared_ptr<softgpu::Module> code() const { return code_; }
  /// Makes the handles of its functions invalid.
  void unload();

  CUmodule handle = nullptr;
  CUcontext context = nullptr;
  bool of_library = false;

 private:
  std::shared_ptr<softgpu::Module> code_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Function>, std::less<>> functions_;
  std::map<std::string, CUtexref, std::less<>> textures_;
  std::map<std::string, CUsurfref, std::less<>> surfaces_;
};

class Library;

/// A kernel of a library, whatever the context: what a CUkernel names.
struct LibraryKernel {
  std::weak_ptr<Library> library;
  std::string name;
  CUkernel handle = nullptr;
};

class Library : public std::enable_shared_from_this<Library> {
 public:
  explicit Library(Image content) : image(std::move(content)) {}
  /// The module in this context, loaded if need be.
  CUresult module(Context& context, std::string* log, std::shared_ptr<LoadedModule>* out);
  /// A module of some context, for questions that do not depend on it.
  CUresult any_module(std::shared_ptr<LoadedModule>* out);
  CUresult kernel(std::string_view name, std::shared_ptr<LibraryKernel>* out);
  void unload();

  const Image image;
  CUlibrary handle = nullptr;

 private:
  std::mutex mutex_;
  std::map<uint64_t, std::shared_ptr<LoadedModule>> modules_;  // by context id
  std::map<std::string, std::shared_ptr<LibraryKernel>, std::less<>> kernels_;
};

HandleTable<LoadedModule, CUmodule, 7>& modules();
HandleTable<Function, CUfunction, 8>& functions();
HandleTable<Library, CUlibrary, 9>& libraries();
HandleTable<LibraryKernel, CUkernel, 10>& kernels();

/// The function that a CUfunction names in this context; CUDA takes a CUkernel in its place.
CUresult find_function(CUfunction handle, Context& context, std::shared_ptr<Function>* out);
CUresult kernel_function(CUkernel handle, Context& context, std::shared_ptr<Function>* out);

}  // namespace softgpu
