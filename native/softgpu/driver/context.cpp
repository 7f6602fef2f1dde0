// How contexts live, fail and end; the stack of each thread.
// SPDX-License-Identifier: Apache-2.0
#include "context.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "../../tables/tables.hpp"
#include "array.hpp"
#include "function.hpp"
#include "green_context.hpp"
#include "handles.hpp"
#include "memory_map.hpp"
#include "printf_text.hpp"
#include "stream.hpp"

namespace softgpu {
namespace {

// A context's handle is readable, zeroed memory, since older runtimes look into it. Its address
// tells the slot; slots are used again only after all others were.
constexpr size_t kSlotBytes = 8192;
constexpr size_t kSlots = 4096;

struct Slots {
  std::mutex mutex;
  char* base = nullptr;
  size_t next = 0;
  std::shared_ptr<Context> context[kSlots];
  std::shared_ptr<GreenContext> green[kSlots];  ///< the context's part that has this handle
  bool kept[kSlots] = {};
};

Slots& slots() {
  static Slots& value = *new Slots;
  return value;
}

/// `keep`: the slot is never given to another.
CUcontext take_slot(bool keep) {
  Slots& s = slots();
  std::lock_guard lock(s.mutex);
  if (s.base == nullptr) {
    void* memory = mmap(nullptr, kSlotBytes * kSlots, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    s.base = static_cast<char*>(memory);
  }
  for (size_t i = 0; i < kSlots; ++i) {
    size_t slot = (s.next + i) % kSlots;
    if (s.context[slot] || s.kept[slot]) continue;
    s.kept[slot] = keep;
    s.next = slot + 1;
    return reinterpret_cast<CUcontext>(s.base + slot * kSlotBytes);
  }
  return nullptr;
}

std::atomic<size_t> green_count{0};  // that live, in all contexts

/// The slot of a handle, or kSlots.
size_t slot_of(CUcontext handle) {
  auto address = reinterpret_cast<uint64_t>(handle);
  auto base = reinterpret_cast<uint64_t>(slots().base);
  if (base == 0 || address < base || (address - base) % kSlotBytes != 0) return kSlots;
  return std::min<size_t>((address - base) / kSlotBytes, kSlots);
}

std::atomic<uint64_t> next_context_id{1};

struct ThreadState {
  std::vector<CUcontext> stack;
  std::map<uint64_t, std::shared_ptr<Stream>> per_thread;  // by context id
};

// A plain pointer: it can still be read when the program's own destructors call CUDA at exit, after
// the thread's destructors have run.
thread_local ThreadState* thread_state_pointer = nullptr;

/// Retires the thread's default streams with the thread.
struct Reaper {
  ~Reaper() {
    if (thread_state_pointer == nullptr || getpid() == gettid()) return;
    for (auto& [id, stream] : thread_state_pointer->per_thread) {
      stream->destroyed.store(true);
      auto owner = stream->context.lock();
      if (owner && stream->idle()) owner->remove_stream(stream.get());
    }
    delete thread_state_pointer;
    thread_state_pointer = nullptr;
  }
};

ThreadState& thread_state() {
  if (thread_state_pointer == nullptr) {
    thread_local Reaper reaper;
    thread_state_pointer = new ThreadState;
  }
  return *thread_state_pointer;
}

}  // namespace

Context::Context(CUcontext own_handle, Device& own_device, unsigned own_flags, bool is_primary,
                 unsigned version)
    : handle(own_handle),
      device(own_device),
      id(next_context_id.fetch_add(1)),
      flags(own_flags),
      primary(is_primary),
      api_version(version) {
  for (auto& limit : limits) limit.store(0);
  limits[CU_LIMIT_STACK_SIZE].store(1024);
  limits[CU_LIMIT_PRINTF_FIFO_SIZE].store(1 << 20);
  limits[CU_LIMIT_MALLOC_HEAP_SIZE].store(8 << 20);
  limits[CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH].store(2);
  limits[CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT].store(2048);
  limits[CU_LIMIT_MAX_L2_FETCH_GRANULARITY].store(64);
}

std::shared_ptr<Context> Context::create(Device& device, unsigned flags, bool primary,
                                         unsigned api_version) {
  if (!device.charge(kContextBytes)) return nullptr;
  // A device's primary context has one handle for ever: programs go on using it after a reset.
  CUcontext handle = primary ? device.primary_handle : nullptr;
  if (handle == nullptr) handle = take_slot(primary);
  if (primary) device.primary_handle = handle;
  if (handle == nullptr) {
    device.refund(kContextBytes);
    return nullptr;
  }
  std::shared_ptr<Context> context(new Context(handle, device, flags, primary, api_version));
  context->legacy_ = std::make_shared<Stream>(*context, 0, 0);
  context->legacy_->legacy = true;
  context->add_stream(context->legacy_);
  std::lock_guard lock(slots().mutex);
  slots().context[slot_of(handle)] = context;
  return context;
}

Context::~Context() = default;

void Context::destroy() {
  outboard::tables::context_destroyed(handle);
  cancelled_.store(true, std::memory_order_release);
  synchronize();
  for (auto greens = greens_; auto& green : greens) end_green_context(*green);
  auto own = streams();
  PrintfText::flush();
  std::vector<std::weak_ptr<LoadedModule>> modules;
  std::vector<Device*> peers;
  {
    std::lock_guard lock(owned_mutex_);
    modules.swap(modules_);
    peers.swap(peers_);
  }
  for (auto& weak : modules) {
    if (auto module = weak.lock()) module->unload();
  }
  for (Device* peer : peers) peer->remove_viewer(&device);
  MemoryMap::get().release_context(*this);
  forget_arrays(*this);
  for (auto& stream : own) {
    stream->destroyed.store(true);
    if (stream->handle != nullptr) ::softgpu::streams().erase(stream->handle);
  }
  {
    std::lock_guard lock(streams_mutex_);
    streams_.clear();
  }
  device.refund(kContextBytes);
  std::lock_guard lock(slots().mutex);
  slots().context[slot_of(handle)].reset();
}

void Context::fail(CUresult error) {
  CUresult none = CUDA_SUCCESS;
  fault_.compare_exchange_strong(none, error);
}

bool Context::add_green(const std::shared_ptr<GreenContext>& green) {
  green->current = take_slot(false);
  if (green->current == nullptr) return false;
  green->context = weak_from_this();
  green->id = next_context_id.fetch_add(1);
  green_count.fetch_add(1);
  {
    std::lock_guard lock(owned_mutex_);
    greens_.push_back(green);
  }
  std::lock_guard lock(slots().mutex);
  slots().context[slot_of(green->current)] = shared_from_this();
  slots().green[slot_of(green->current)] = green;
  return true;
}

void Context::remove_green(const GreenContext& green) {
  std::shared_ptr<GreenContext> gone;  // outlives the locks
  {
    std::lock_guard lock(slots().mutex);
    slots().context[slot_of(green.current)].reset();
    gone = std::move(slots().green[slot_of(green.current)]);
  }
  std::lock_guard lock(owned_mutex_);
  green_count.fetch_sub(std::erase(greens_, gone));
}

std::shared_ptr<Record> Context::gate() const {
  std::lock_guard lock(owned_mutex_);
  return gate_;
}

void Context::set_gate(std::shared_ptr<Record> record) {
  std::lock_guard lock(owned_mutex_);
  gate_ = std::move(record);
}

std::shared_ptr<Stream> Context::per_thread_stream() {
  auto& state = thread_state().per_thread;
  std::shared_ptr<GreenContext> green = current_green_context();
  const uint64_t key = green ? green->id : id;
  auto found = state.find(key);
  if (found == state.end()) {
    std::erase_if(state, [](const auto& entry) { return entry.second->context.expired(); });
    retire_streams();
    auto stream = std::make_shared<Stream>(*this, 0, 0, green);
    stream->per_thread = true;
    add_stream(stream);
    state[key] = stream;
    return stream;
  }
  return found->second;
}

void Context::add_module(const std::shared_ptr<LoadedModule>& module) {
  std::lock_guard lock(owned_mutex_);
  std::erase_if(modules_, [](const auto& known) { return known.expired(); });
  modules_.push_back(module);
}

bool Context::enable_peer(Device& peer) {
  std::lock_guard lock(owned_mutex_);
  if (std::find(peers_.begin(), peers_.end(), &peer) != peers_.end()) return false;
  peers_.push_back(&peer);
  peer.add_viewer(&device);
  return true;
}

bool Context::disable_peer(Device& peer) {
  std::lock_guard lock(owned_mutex_);
  if (std::erase(peers_, &peer) == 0) return false;
  peer.remove_viewer(&device);
  return true;
}

void Context::add_stream(std::shared_ptr<Stream> stream) {
  std::lock_guard lock(streams_mutex_);
  streams_.push_back(std::move(stream));
}

void Context::remove_stream(const Stream* stream) {
  std::lock_guard lock(streams_mutex_);
  std::erase_if(streams_, [&](const auto& s) { return s.get() == stream; });
}

void Context::retire_streams() {
  std::lock_guard lock(streams_mutex_);
  std::erase_if(streams_, [](const auto& s) { return s->destroyed.load() && s->idle(); });
}

std::vector<std::shared_ptr<Stream>> Context::streams() const {
  std::lock_guard lock(streams_mutex_);
  return streams_;
}

CUresult Context::synchronize() {
  for (auto& stream : streams()) stream->wait_for(stream->issued());
  return fault();
}

std::shared_ptr<Context> find_context(CUcontext handle) {
  size_t slot = slot_of(handle);
  if (slot >= kSlots) return nullptr;
  std::lock_guard lock(slots().mutex);
  return slots().context[slot];
}

std::shared_ptr<GreenContext> find_green_context(CUcontext handle) {
  if (green_count.load() == 0) return nullptr;
  size_t slot = slot_of(handle);
  if (slot >= kSlots) return nullptr;
  std::lock_guard lock(slots().mutex);
  return slots().green[slot];
}

CUcontext ContextStack::current() {
  const auto& stack = thread_state().stack;
  return stack.empty() ? nullptr : stack.back();
}

void ContextStack::set_current(CUcontext context) {
  auto& stack = thread_state().stack;
  if (!stack.empty()) stack.pop_back();
  if (context != nullptr) stack.push_back(context);
}

void ContextStack::push(CUcontext context) { thread_state().stack.push_back(context); }

CUresult ContextStack::pop(CUcontext* out) {
  auto& stack = thread_state().stack;
  if (stack.empty()) return CUDA_ERROR_INVALID_CONTEXT;
  if (out != nullptr) *out = stack.back();
  stack.pop_back();
  return CUDA_SUCCESS;
}

std::shared_ptr<Context> primary_context(Device& device) {
  std::lock_guard lock(device.primary_mutex);
  if (!device.primary) {
    device.primary = Context::create(device, device.primary_flags, true, 0);
  }
  return device.primary;
}

}  // namespace softgpu
