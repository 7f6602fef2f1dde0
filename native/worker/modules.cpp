// Loading modules and libraries, and finding what is in them.
// SPDX-License-Identifier: Apache-2.0
#include "worker/modules.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "wire/image_list.hpp"
#include "worker/jit_options.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

/// One load beside the loop.
struct Load {
  Request request;
  uint64_t id = 0;
  bool library = false;
  Digest hash;
  bool verified = false;
  bool intact = true;
  std::shared_ptr<Context> context;
  std::shared_ptr<const Bytes> image;
  JitOptions options;
  std::shared_ptr<Module> module = std::make_shared<Module>();
  CUresult result = CUDA_SUCCESS;
  unsigned kernels = 0;
};

// The wrapper that nvcc's separate compilation makes: a linked container, and a list of what is to
// be linked with it.
struct Wrapper {
  struct Head {
    uint32_t magic = 0x466243B1;
    uint32_t version = 2;
    const void* data = nullptr;
    const void* list = nullptr;
  } head;
  std::vector<const void*> list;

  bool read(std::span<const std::byte> image) {
    const auto parts = wire::read_image_list(image);
    if (parts.empty()) return false;
    for (const auto& part : parts) list.push_back(part.data());
    list.push_back(nullptr);
    head.data = list.front();
    head.list = list.data() + 1;
    return true;
  }
};

// Checks what the driver would believe without looking: an image holds no addresses, a container
// ends within it, and a text ends with NUL, for which a copy is made where it does not.
bool make_safe(std::shared_ptr<const Bytes>& image) {
  constexpr uint32_t wrapper_magic = 0x466243B1;
  constexpr uint32_t fatbin_magic = 0xBA55ED50;
  constexpr uint32_t elf_magic = 0x464C457F;
  struct {
    uint32_t magic;
    uint16_t version;
    uint16_t header_bytes;
    uint64_t content_bytes;
  } head = {};
  std::memcpy(&head, image->data(), std::min(image->size(), sizeof head));
  if (head.magic == wrapper_magic) return false;
  if (head.magic == fatbin_magic) {
    return image->size() >= sizeof head && head.header_bytes <= image->size() &&
           head.content_bytes <= image->size() - head.header_bytes;
  }
  if (head.magic == elf_magic || image->back() == std::byte{0}) return true;
  auto text = std::make_shared<Bytes>(*image);
  text->push_back(std::byte{0});
  image = std::move(text);
  return true;
}

// On the side thread; touches nothing that the loop uses.
void load(const Driver& driver, Load& job) {
  if (!job.verified && sha256(*job.image) != job.hash) {
    job.intact = false;
    job.result = CUDA_ERROR_FILE_NOT_FOUND;
    return;
  }
  driver.cuCtxSetCurrent(job.context->handle);
  Module& module = *job.module;
  JitOptions& options = job.options;
  Wrapper wrapper;
  std::shared_ptr<const Bytes> content = job.image;
  const bool list = wire::is_image_list(*content);
  if (list ? !wrapper.read(*content) : !make_safe(content)) {
    job.result = CUDA_ERROR_INVALID_IMAGE;
    return;
  }
  const void* image = list ? static_cast<const void*>(&wrapper.head) : content->data();
  if (job.library) {
    job.result = driver.cuLibraryLoadData(&module.library, image, options.options(),
                                          options.values(), options.count(), nullptr, nullptr, 0);
    if (job.result == CUDA_SUCCESS) driver.cuLibraryGetKernelCount(&job.kernels, module.library);
  } else {
    job.result = driver.cuModuleLoadDataEx(&module.module, image, options.count(),
                                           options.options(), options.values());
    if (job.result == CUDA_SUCCESS) driver.cuModuleGetFunctionCount(&job.kernels, module.module);
  }
}

// Whether kernels of the image may call printf: it names the function, or it may hold compressed
// text.
bool may_print(const Bytes& image) {
  if (wire::is_image_list(image)) return true;
  constexpr uint32_t fatbin_magic = 0xBA55ED50;
  uint32_t magic = 0;
  if (image.size() >= sizeof magic) std::memcpy(&magic, image.data(), sizeof magic);
  if (magic == fatbin_magic) return true;
  const std::string_view text(reinterpret_cast<const char*>(image.data()), image.size());
  return text.find("vprintf") != std::string_view::npos || text.find('\0') == 0;
}

void finish(Worker& worker, Load& job) {
  --job.context->loading;
  const auto reject = [&](CUresult result) { worker.answer(job.request, result); };
  if (!job.intact) {
    worker.images.drop(job.hash);
    return reject(CUDA_ERROR_FILE_NOT_FOUND);
  }
  worker.images.set_verified(job.hash);
  if (job.context->fatal != CUDA_SUCCESS) return reject(job.context->fatal);
  if (job.result == CUDA_SUCCESS) {
    job.module->context = job.context;
    job.context->prints |= may_print(*job.image);
    if (!worker.accept_create(worker.tables.modules.insert(job.id, job.module))) return;
  }
  worker.checked(*job.context, job.result);
  wire::command::ModuleLoad::Reply reply;
  reply.kernels = job.kernels;
  reply.wall_time = job.options.wall_time_ms();
  reply.info_log = job.options.info_log();
  reply.error_log = job.options.error_log();
  worker.reply(job.request, job.result, reply);
}

CUresult find_function(const Driver& driver, const Module& module, const char* name,
                       Function* function) {
  if (module.module) return driver.cuModuleGetFunction(&function->handle, module.module, name);
  const CUresult result = driver.cuLibraryGetKernel(&function->kernel, module.library, name);
  if (result != CUDA_SUCCESS) return result;
  return driver.cuKernelGetFunction(&function->handle, function->kernel);
}

// Offset and size of every parameter; the driver ends the list with INVALID_VALUE.
void read_layout(const Driver& driver, Function& function, std::vector<uint32_t>& layout) {
  constexpr size_t most_parameters = 4096;
  for (size_t i = 0; i < most_parameters; ++i) {
    size_t offset = 0;
    size_t bytes = 0;
    const CUresult result = function.kernel
                                ? driver.cuKernelGetParamInfo(function.kernel, i, &offset, &bytes)
                                : driver.cuFuncGetParamInfo(function.handle, i, &offset, &bytes);
    if (result != CUDA_SUCCESS) return;
    layout.push_back(static_cast<uint32_t>(offset));
    layout.push_back(static_cast<uint32_t>(bytes));
    function.params_bytes = std::max<uint64_t>(function.params_bytes, offset + bytes);
  }
}

void read_attributes(const Driver& driver, const Function& function,
                     std::vector<uint32_t>& attributes) {
  attributes.assign(CU_FUNC_ATTRIBUTE_MAX, 0);
  for (int attribute = 0; attribute < CU_FUNC_ATTRIBUTE_MAX; ++attribute) {
    int value = 0;
    if (driver.cuFuncGetAttribute(&value, static_cast<CUfunction_attribute>(attribute),
                                  function.handle) == CUDA_SUCCESS) {
      attributes[static_cast<size_t>(attribute)] = static_cast<uint32_t>(value);
    }
  }
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::ModuleImage& command) {
  if (command.content.size() > wire::max_image_piece_bytes) return CUDA_ERROR_INVALID_VALUE;
  return worker.images.add(command.hash, command.total_bytes, command.offset, command.content)
             ? CUDA_SUCCESS
             : CUDA_ERROR_INVALID_VALUE;
}

void execute(Worker& worker, const Request& request, const wire::command::ModuleLoad& command) {
  if (!worker.accept_create(worker.tables.modules.may_insert(command.module))) return;
  Context* current = worker.current();
  if (!current) return worker.answer(request, CUDA_ERROR_INVALID_CONTEXT);
  auto image = worker.images.find(command.hash);
  if (!image) return worker.answer(request, CUDA_ERROR_FILE_NOT_FOUND);
  auto job = std::make_shared<Load>();
  if (!job->options.read(command.options)) {
    return worker.answer(request, CUDA_ERROR_NOT_SUPPORTED);
  }
  job->request = request;
  job->id = command.module;
  job->library = command.library != 0;
  job->hash = command.hash;
  job->verified = worker.images.verified(command.hash);
  job->context = worker.tables.contexts.share(current->id);
  job->image = std::move(image);
  ++job->context->loading;
  worker.side.start([&driver = worker.driver(), job] { load(driver, *job); },
                    [&worker, job] { finish(worker, *job); });
}

void execute(Worker& worker, const Request& request, const wire::command::ModuleUnload& command) {
  const std::shared_ptr<Module> module = worker.tables.modules.share(command.module);
  if (!module) return worker.answer(request, CUDA_ERROR_INVALID_HANDLE);
  worker.completion.when_done(
      *module->context, [&worker, request, id = command.module, module](CUresult) {
        if (!worker.tables.modules.remove(id)) {
          return worker.answer(request, CUDA_ERROR_INVALID_HANDLE);  // its context went, or twice
        }
        Context& context = *module->context;
        worker.tables.functions.remove_where(
            [&](const Function& function) { return function.module == module.get(); });
        worker.tables.references.remove_where(
            [&](const TextureReference& one) { return one.module == module.get(); });
        worker.memory.remove_globals(*module);
        worker.host_memory.release_lost();
        worker.make_current(context);
        const CUresult result = module->library ? worker.driver().cuLibraryUnload(module->library)
                                                : worker.driver().cuModuleUnload(module->module);
        worker.answer(request, worker.checked(context, result));
      });
}

CUresult execute(Worker& worker, const wire::command::ModuleGetFunction& command,
                 wire::command::ModuleGetFunction::Reply& reply) {
  // The reply's spans must outlive this call.
  static thread_local std::vector<uint32_t> layout;
  static thread_local std::vector<uint32_t> attributes;
  const Module* module = worker.tables.modules.find(command.module);
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  if (!worker.accept_create(worker.tables.functions.may_insert(command.function))) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  worker.make_current(*module->context);
  const std::string name(command.name);
  auto function = std::make_shared<Function>();
  function->context = module->context;
  function->module = module;
  const Driver& driver = worker.driver();
  if (const CUresult result = find_function(driver, *module, name.c_str(), function.get());
      result != CUDA_SUCCESS) {
    return result;
  }
  layout.clear();
  read_layout(driver, *function, layout);
  function->layout = layout;
  read_attributes(driver, *function, attributes);
  const char* driver_name = nullptr;
  if (driver.cuFuncGetName(&driver_name, function->handle) == CUDA_SUCCESS && driver_name) {
    reply.name = driver_name;
  } else {
    reply.name = command.name;
  }
  reply.offsets_sizes = layout;
  reply.attributes = attributes;
  worker.tables.functions.insert(command.function, std::move(function));
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::ModuleListFunctions& command,
                 wire::command::ModuleListFunctions::Reply& reply) {
  static thread_local std::string names;
  const Module* module = worker.tables.modules.find(command.module);
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  worker.make_current(*module->context);
  const Driver& driver = worker.driver();
  unsigned count = 0;
  CUresult result = module->library ? driver.cuLibraryGetKernelCount(&count, module->library)
                                    : driver.cuModuleGetFunctionCount(&count, module->module);
  if (result != CUDA_SUCCESS) return result;
  std::vector<CUkernel> kernels(module->library ? count : 0);
  std::vector<CUfunction> functions(module->library ? 0 : count);
  result = module->library
               ? driver.cuLibraryEnumerateKernels(kernels.data(), count, module->library)
               : driver.cuModuleEnumerateFunctions(functions.data(), count, module->module);
  if (result != CUDA_SUCCESS) return result;
  names.clear();
  for (unsigned i = 0; i < count; ++i) {
    const char* name = nullptr;
    result = module->library ? driver.cuKernelGetName(&name, kernels[i])
                             : driver.cuFuncGetName(&name, functions[i]);
    if (result != CUDA_SUCCESS) return result;
    names.append(name).push_back('\0');
  }
  reply.names = names;
  return CUDA_SUCCESS;
}

namespace {

CUresult find_global(const Driver& driver, const Module& module, const char* name, bool managed,
                     CUdeviceptr* address, size_t* bytes) {
  if (!module.library) return driver.cuModuleGetGlobal_v2(address, bytes, module.module, name);
  if (!managed) return driver.cuLibraryGetGlobal(address, bytes, module.library, name);
  // What a library manages is there once it is loaded in some context.
  CUmodule loaded = nullptr;
  const CUresult result = driver.cuLibraryGetModule(&loaded, module.library);
  if (result != CUDA_SUCCESS) return result;
  return driver.cuLibraryGetManaged(address, bytes, module.library, name);
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::ModuleGetGlobal& command,
                 wire::command::ModuleGetGlobal::Reply& reply) {
  const Module* module = worker.tables.modules.find(command.module);
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  worker.make_current(*module->context);
  const std::string name(command.name);
  CUdeviceptr address = 0;
  size_t bytes = 0;
  const CUresult result =
      find_global(worker.driver(), *module, name.c_str(), command.managed != 0, &address, &bytes);
  if (result != CUDA_SUCCESS) return result;
  unsigned managed = 0;
  worker.driver().cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, address);
  worker.memory.add_global(*module, {address, bytes}, managed != 0);
  reply.address = address;
  reply.bytes = bytes;
  reply.managed = managed;
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::LibraryGetUnifiedFunction& command,
                 wire::command::LibraryGetUnifiedFunction::Reply& reply) {
  const Module* module = worker.tables.modules.find(command.module);
  if (!module || !module->library) return CUDA_ERROR_INVALID_HANDLE;
  void* address = nullptr;
  const CUresult result = worker.driver().cuLibraryGetUnifiedFunction(
      &address, module->library, std::string(command.name).c_str());
  reply.address = reinterpret_cast<uint64_t>(address);
  return result;
}

CUresult execute(Worker& worker, const wire::command::FunctionSetAttribute& command) {
  const Function* function = worker.tables.functions.find(command.function);
  if (!function) return CUDA_ERROR_INVALID_HANDLE;
  worker.make_current(*function->context);
  const auto attribute = static_cast<CUfunction_attribute>(command.attribute);
  return worker.driver().cuFuncSetAttribute(function->handle, attribute, command.value);
}

CUresult execute(Worker& worker, const wire::command::FunctionSetCacheConfig& command) {
  const Function* function = worker.tables.functions.find(command.function);
  if (!function) return CUDA_ERROR_INVALID_HANDLE;
  worker.make_current(*function->context);
  return worker.driver().cuFuncSetCacheConfig(function->handle,
                                              static_cast<CUfunc_cache>(command.config));
}

}  // namespace outboard::worker
