// The private export tables: what each slot that CUDA's libraries call does.
// SPDX-License-Identifier: Apache-2.0
#include "tables.hpp"

#include <pthread.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "context_storage.hpp"
#include "unserved.hpp"
#include "validity.hpp"

namespace outboard::tables {
namespace {

constexpr const char* kInterfaceId = "6bd5fb6c-5bf4-e74a-8987-d93912fd9df9";
constexpr const char* kToolsHooksId = "a094798c-2e74-2e74-93f2-0800200c0a66";
constexpr const char* kToolsTlsId = "42d85a81-23f6-cb47-8298-f6e78a3aecdc";
constexpr const char* kContextStorageId = "c693336e-1121-df11-a8c3-68f355d89593";
constexpr const char* kContextChecksId = "263e8860-7cd2-6143-92f6-bbd5006dfa7e";
constexpr const char* kValidityId = "d4082055-bde6-704b-8d34-ba123c66e1f2";
constexpr const char* kStreamsId = "21318c60-9714-3248-8ca6-41ff7324c8f2";
constexpr const char* kTpcId = "1734dc26-800d-4745-8726-c0f1e7dd8bca";
constexpr const char* kModulesId = "6e163fbe-b958-444d-835c-e182aff1991e";

// Set once, by install(), before any table is handed out.
Host host{};

// Never destroyed: programs call in while the process ends, in any order.
ContextStorage& storage() {
  static auto* const instance = new ContextStorage;
  return *instance;
}

template <typename Function>
Slot slot_of(Function* function) {
  return reinterpret_cast<Slot>(function);
}

// Most tables begin with their own size in bytes.
template <size_t kCount>
void set_size(std::array<Slot, kCount>& table) {
  table[0] = reinterpret_cast<Slot>(sizeof(table));
}

// Answers `context`, or the calling thread's current context where it is null.
CUresult resolve(CUcontext& context) {
  if (context != nullptr) return CUDA_SUCCESS;
  const CUresult result = host.current_context(&context);
  if (result != CUDA_SUCCESS) return result;
  return context == nullptr ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

// --- 6bd5fb6c: libcudart's own way in -----------------------------------------------------------

CUresult primary_context(CUcontext* out, CUdevice device) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return host.primary_context(out, device);
}

CUresult load_wrapper(CUmodule* out, const void* wrapper) {
  if (out == nullptr || wrapper == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return host.load_module(out, wrapper);
}

CUresult load_wrapper_with(CUmodule* out, const void* wrapper, void*, void*, size_t) {
  return load_wrapper(out, wrapper);
}

// The one loader that takes the image first: a fat binary's header.
CUresult load_header_with(const void* header, CUmodule* out, void*, void*, unsigned int) {
  return load_wrapper(out, header);
}

void accept_size(size_t) {}

CUresult load_compilers() { return CUDA_SUCCESS; }

auto make_interface_table() {
  auto table = unserved_table<kInterfaceId, 13>();
  set_size(table);
  table[1] = slot_of(load_wrapper);
  table[2] = slot_of(primary_context);
  table[6] = slot_of(load_wrapper_with);
  table[7] = slot_of(accept_size);
  table[8] = slot_of(load_header_with);
  table[12] = slot_of(load_compilers);
  return table;
}

// --- a094798c: the switches of profilers and debuggers, which stay zero: no tool is attached
// ------

// One word for each function of the runtime: not zero means that a tool is called around it. The
// size is the number of words, and callers look words up by function without checking it.
constexpr size_t kSwitches = 0x400;

void tools_switches(void** buffer, size_t* count) {
  static uint64_t switches[kSwitches];
  *buffer = switches;
  *count = kSwitches;
}

// The same for groups of functions.
constexpr size_t kDomains = 0xE;

void tools_domains(void** buffer, size_t* count) {
  static uint64_t domains[2 * kDomains];
  *buffer = domains;
  *count = kDomains;
}

CUresult tools_register(uint64_t, const void*) { return CUDA_SUCCESS; }

// The number of a context, and of a stream, as tools are told it. Nobody is told.
CUresult tools_context_number(CUcontext, uint64_t* out) {
  if (out != nullptr) *out = 0;
  return CUDA_SUCCESS;
}

CUresult tools_stream_number(CUcontext, CUstream, uint64_t* out) {
  if (out != nullptr) *out = 0;
  return CUDA_SUCCESS;
}

auto make_tools_hooks_table() {
  auto table = unserved_table<kToolsHooksId, 7>();
  set_size(table);
  table[1] = slot_of(tools_register);
  table[2] = slot_of(tools_switches);
  table[3] = slot_of(tools_stream_number);
  table[4] = slot_of(tools_context_number);
  table[6] = slot_of(tools_domains);
  return table;
}

// --- 42d85a81: the current context, asked at every launch of cuBLASLt and cuDNN
// -------------------

CUresult current_context(CUcontext* out) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return host.current_context(out);
}

auto make_tools_tls_table() {
  auto table = unserved_table<kToolsTlsId, 3>();
  set_size(table);
  table[2] = slot_of(current_context);
  return table;
}

// --- c693336e: context-local storage, the one table without a size
// --------------------------------

CUresult storage_put(CUcontext context, void* key, void* value,
                     ContextStorage::Destructor destructor) {
  const CUresult result = resolve(context);
  if (result != CUDA_SUCCESS) return result;
  storage().put(context, key, value, destructor);
  return CUDA_SUCCESS;
}

CUresult storage_delete(CUcontext context, void* key) {
  const CUresult result = resolve(context);
  if (result != CUDA_SUCCESS) return result;
  return storage().remove(context, key) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult storage_get(void** value, CUcontext context, void* key) {
  const CUresult result = resolve(context);
  if (result != CUDA_SUCCESS) return result;
  return storage().find(context, key, value) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

auto make_context_storage_table() {
  // How many slots the real table has is not known; three are called.
  auto table = unserved_table<kContextStorageId, 8>();
  table[0] = slot_of(storage_put);
  table[1] = slot_of(storage_delete);
  table[2] = slot_of(storage_get);
  return table;
}

// --- 263e8860: context checks
// ---------------------------------------------------------------------

CUresult context_check(CUcontext, uint32_t* out, void**) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = 0;
  return CUDA_SUCCESS;
}

uint32_t context_check_flags() { return 0; }

auto make_context_checks_table() {
  auto table = unserved_table<kContextChecksId, 15>();
  set_size(table);
  table[2] = slot_of(context_check);
  table[3] = slot_of(context_check_flags);
  return table;
}

// --- d4082055: the validity check
// -----------------------------------------------------------------

CUresult validity_check(uint32_t version, uint64_t unix_seconds, uint64_t* result);

CUresult identify(DeviceIdentity& out, CUdevice device) {
  CUuuid uuid;
  CUresult result = host.device_uuid(&uuid, device);
  if (result != CUDA_SUCCESS) return result;
  std::memcpy(out.uuid.data(), uuid.bytes, out.uuid.size());
  const std::pair<CUdevice_attribute, int32_t*> wanted[] = {
      {CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, &out.pci_domain},
      {CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, &out.pci_bus},
      {CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, &out.pci_device},
  };
  for (const auto& [attribute, value] : wanted) {
    result = host.device_attribute(value, attribute, device);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

auto make_validity_table() {
  auto table = unserved_table<kValidityId, 3>();
  set_size(table);
  table[1] = slot_of(validity_check);
  return table;
}

// --- 21318c60: contexts and streams by number, for cuBLASLt and the solvers
// -----------------------

CUresult context_id(CUcontext context, uint64_t* out) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUresult result = resolve(context);
  if (result != CUDA_SUCCESS) return result;
  unsigned long long id = 0;
  result = host.context_id(context, &id);
  if (result == CUDA_SUCCESS) *out = id;
  return result;
}

CUresult stream_id(CUcontext context, void* object, uint64_t* out) {
  if (out == nullptr || object == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = resolve(context);
  return result == CUDA_SUCCESS ? host.stream_id(context, object, out) : result;
}

CUresult stream_object(CUcontext context, CUstream stream, void** out) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (reinterpret_cast<intptr_t>(stream) == -1) return CUDA_ERROR_INVALID_HANDLE;
  const CUresult result = resolve(context);
  return result == CUDA_SUCCESS ? host.stream_object(context, stream, out) : result;
}

auto make_streams_table() {
  auto table = unserved_table<kStreamsId, 93>();
  set_size(table);
  table[4] = slot_of(context_id);
  table[39] = slot_of(stream_id);
  table[51] = slot_of(stream_object);
  return table;
}

// --- 1734dc26: where the device's TPCs lie, for cuBLASLt on Hopper
// --------------------------------

bool read_tpc_layout(TpcLayout& out) {
  return host.tpc_layout != nullptr && host.tpc_layout(&out) == CUDA_SUCCESS && out.count != 0 &&
         out.place != nullptr && out.gpc != nullptr;
}

CUresult tpc_arrays(uint8_t** place, uint8_t** gpc) {
  if (place == nullptr || gpc == nullptr) return CUDA_ERROR_INVALID_VALUE;
  TpcLayout layout;
  if (!read_tpc_layout(layout)) return CUDA_ERROR_NOT_SUPPORTED;
  // The caller gives them back through slot 13.
  *place = static_cast<uint8_t*>(std::malloc(layout.count));
  *gpc = static_cast<uint8_t*>(std::malloc(layout.count));
  if (*place == nullptr || *gpc == nullptr) {
    std::free(*place);
    std::free(*gpc);
    *place = *gpc = nullptr;
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  std::memcpy(*place, layout.place, layout.count);
  std::memcpy(*gpc, layout.gpc, layout.count);
  return CUDA_SUCCESS;
}

CUresult free_tpc_arrays(uint8_t* place, uint8_t* gpc) {
  std::free(place);
  std::free(gpc);
  return CUDA_SUCCESS;
}

auto make_tpc_table() {
  auto table = unserved_table<kTpcId, 17>();
  set_size(table);
  table[4] = slot_of(tpc_arrays);
  table[13] = slot_of(free_tpc_arrays);
  return table;
}

// --- 6e163fbe: the functions of a module, for cuFFT
// -----------------------------------------------

using FunctionCallback = void (*)(void* opaque, CUfunction function, uint64_t);

uint64_t enumerate_functions(CUcontext, CUmodule module, FunctionCallback callback, void* opaque) {
  unsigned int count = 0;
  if (callback == nullptr || host.module_function_count(&count, module) != CUDA_SUCCESS) return 0;
  std::vector<CUfunction> functions(count);
  if (host.module_functions(functions.data(), count, module) != CUDA_SUCCESS) return 0;
  for (CUfunction function : functions) callback(opaque, function, 0);
  return count;
}

auto make_modules_table() {
  auto table = unserved_table<kModulesId, 99>();
  set_size(table);
  table[7] = slot_of(enumerate_functions);
  return table;
}

// --- The tables together
// --------------------------------------------------------------------------

struct Tables {
  std::array<Slot, 13> interface = make_interface_table();
  std::array<Slot, 7> tools_hooks = make_tools_hooks_table();
  std::array<Slot, 3> tools_tls = make_tools_tls_table();
  std::array<Slot, 8> context_storage = make_context_storage_table();
  std::array<Slot, 15> context_checks = make_context_checks_table();
  std::array<Slot, 3> validity = make_validity_table();
  std::array<Slot, 93> streams = make_streams_table();
  std::array<Slot, 17> tpc = make_tpc_table();
  std::array<Slot, 99> modules = make_modules_table();
};

const Tables& tables() {
  static const auto* const instance = new Tables;
  return *instance;
}

CUresult validity_check(uint32_t version, uint64_t unix_seconds, uint64_t* result) {
  if (result == nullptr) return CUDA_ERROR_INVALID_VALUE;
  ValidityRecord record{};
  record.check_version = version;
  record.process_id = static_cast<uint32_t>(getpid());
  record.thread = static_cast<uint32_t>(pthread_self());
  record.interface_table = reinterpret_cast<uint64_t>(tables().interface.data());
  record.validity_table = reinterpret_cast<uint64_t>(tables().validity.data());
  record.validity_function = reinterpret_cast<uint64_t>(&validity_check);
  record.unix_seconds = unix_seconds;

  int driver_version = 0;
  int count = 0;
  CUresult status = host.driver_version(&driver_version);
  if (status == CUDA_SUCCESS) status = host.device_count(&count);
  if (status != CUDA_SUCCESS) return status;
  record.driver_version = static_cast<uint32_t>(driver_version);

  std::vector<DeviceIdentity> devices(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    status = identify(devices[static_cast<size_t>(i)], i);
    if (status != CUDA_SUCCESS) return status;
  }
  const ValidityAnswer answer = validity_answer(record, devices);
  std::memcpy(result, answer.data(), sizeof(answer));
  return CUDA_SUCCESS;
}

// "6bd5fb6c-5bf4-…" as the sixteen bytes of a CUuuid.
CUuuid parse_id(const char* text) {
  CUuuid id{};
  size_t digits = 0;
  for (; *text != '\0'; ++text) {
    if (*text == '-') continue;
    const int value = *text <= '9' ? *text - '0' : *text - 'a' + 10;
    char& byte = id.bytes[digits / 2];
    byte = static_cast<char>((static_cast<unsigned char>(byte) << 4) | value);
    ++digits;
  }
  return id;
}

struct Served {
  CUuuid id;
  const void* table;
};

const std::vector<Served>& served() {
  static const auto* const list = new std::vector<Served>{
      {parse_id(kInterfaceId), tables().interface.data()},
      {parse_id(kToolsHooksId), tables().tools_hooks.data()},
      {parse_id(kToolsTlsId), tables().tools_tls.data()},
      {parse_id(kContextStorageId), tables().context_storage.data()},
      {parse_id(kContextChecksId), tables().context_checks.data()},
      {parse_id(kValidityId), tables().validity.data()},
      {parse_id(kStreamsId), tables().streams.data()},
      {parse_id(kTpcId), tables().tpc.data()},
      {parse_id(kModulesId), tables().modules.data()},
  };
  return *list;
}

}  // namespace

void install(const Host& functions) {
  static std::once_flag once;
  std::call_once(once, [&functions] {
    host = functions;
    // So that a fork in one thread does not leave a child whose table another thread was changing.
    storage();
    pthread_atfork([] { storage().lock_for_fork(); }, [] { storage().unlock_after_fork(); },
                   [] { storage().unlock_after_fork(); });
  });
}

CUresult get_export_table(const void** table, const CUuuid* id) {
  if (table == nullptr || id == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *table = nullptr;
  for (const Served& candidate : served()) {
    if (std::memcmp(candidate.id.bytes, id->bytes, sizeof(id->bytes)) != 0) continue;
    TpcLayout layout;
    if (candidate.table == tables().tpc.data() && !read_tpc_layout(layout)) break;
    *table = candidate.table;
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_NOT_FOUND;
}

void context_destroyed(CUcontext context) { storage().context_destroyed(context); }

}  // namespace outboard::tables
