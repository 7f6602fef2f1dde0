// Views of host memory: making them, keeping them alike, ending them.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/device_view.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <utility>

#include "base/log.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/waiting.hpp"
#include "wire/changes.hpp"

namespace outboard::shim {

constinit VisibleWindow visible_window;
constinit std::atomic<uint32_t> views_in_use{0};
constinit std::atomic<bool> leftovers_seen{false};
constinit std::atomic<bool> addresses_stored{false};

namespace {

constexpr uint64_t page_bytes = 4096;
constexpr uint64_t large_page_bytes = 2 << 20;
// Memory up to this size counts as reached whatever looks like its address: flags and results are
// small, and keeping them alike costs microseconds.
constexpr uint64_t most_cheap_bytes = 64 << 10;

/// Commands of this stream up to `count` may change the memory.
struct Use {
  uint64_t stream = 0;
  uint64_t count = UINT64_MAX;  ///< until the command is sent
};

// What the server is known to hold; zeros that cost nothing until they differ.
class Known {
 public:
  explicit Known(size_t bytes) : bytes_(bytes) {
    void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    data_ = memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
  }
  ~Known() {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }
  Known(const Known&) = delete;
  Known& operator=(const Known&) = delete;
  std::byte* data() const { return data_; }

 private:
  size_t bytes_;
  std::byte* data_;
};

struct View {
  client::Server* server = nullptr;
  const Context* home = nullptr;  ///< the context that it is registered in at the server
  uint64_t base = 0;              ///< as devices know it
  std::span<std::byte> memory;    ///< the program's
  std::unique_ptr<Known> known;
  bool captured = false;
  std::vector<Use> uses;
};

struct Views {
  std::mutex mutex;  ///< held during trips: views are rare, and theirs must not cross
  std::map<std::pair<client::Server*, uint64_t>, View> all;
  /// What kernels on a server may find in its devices' memory.
  std::set<std::pair<const client::Server*, uint64_t>> stored;
};

Views& views() {
  static auto* const instance = new Views;
  return *instance;
}

std::byte* bytes_at(uint64_t address) { return reinterpret_cast<std::byte*>(address); }

CUresult send_changes(View& view) {
  std::vector<std::byte> changes;
  for (uint64_t offset = 0; offset < view.memory.size();) {
    changes.clear();
    offset = wire::find_changes(view.memory, view.known->data(), offset, &changes);
    if (changes.empty()) continue;
    const client::Result result = view.server->connection().send(
        wire::command::HostWrite{.address = view.base, .changes = changes}, 0);
    if (result != client::result::success) return to_cuda(result);
  }
  return CUDA_SUCCESS;
}

// A view whose context died has nothing to tell; the context itself says what happened.
CUresult fetch_changes(View& view) {
  for (uint64_t offset = 0; offset < view.memory.size();) {
    client::Answer<wire::command::HostRead> answer;
    view.server->connection().call(wire::command::HostRead{.address = view.base, .offset = offset},
                                   0, &answer);
    if (answer.result == client::result::lost) return CUDA_ERROR_DEVICE_UNAVAILABLE;
    if (answer.result != client::result::success) return CUDA_SUCCESS;
    if (answer.reply.next <= offset ||
        !wire::apply_changes(answer.reply.changes, view.memory, view.known->data())) {
      return CUDA_ERROR_UNKNOWN;
    }
    offset = answer.reply.next;
  }
  return CUDA_SUCCESS;
}

bool is_over(const Use& use) {
  const Stream* stream = streams.find_id(use.stream);
  return stream == nullptr || (use.count != UINT64_MAX && stream->progress.complete >= use.count);
}

// With the lock held. What is over when the changes are asked for is over for good.
CUresult fetch(View& view) {
  if (view.uses.empty()) return CUDA_SUCCESS;
  std::vector<Use> rest;
  std::copy_if(view.uses.begin(), view.uses.end(), std::back_inserter(rest),
               [](const Use& use) { return !is_over(use); });
  const CUresult result = fetch_changes(view);
  view.uses = std::move(rest);
  if (view.uses.empty()) views_in_use.fetch_sub(1);
  return result;
}

void drop_uses(View& view) {
  if (!view.uses.empty()) views_in_use.fetch_sub(1);
  view.uses.clear();
}

CUresult open_view(Context* context, const Range& range, View* view) {
  view->server = context->server;
  view->home = context;
  view->base = range.base;
  view->memory = {bytes_at(range.kind == MemoryKind::alias ? range.partner : range.base),
                  range.bytes};
  view->known = std::make_unique<Known>(range.bytes);
  if (view->known->data() == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  client::Answer<wire::command::HostMap> answer;
  const CUresult result =
      call(context, wire::command::HostMap{.address = range.base, .bytes = range.bytes}, &answer);
  if (result == CUDA_SUCCESS) return result;
  static const char said[] = "view";
  say_once(said,
           "a command reaches host memory at 0x%llx, which the server cannot keep a copy of; the "
           "command fails (copy the memory instead)",
           static_cast<unsigned long long>(range.base));
  return result;
}

// Whether a server has the memory that devices know by this range in a view, and not as its own.
bool has_views(const Range& range, const client::Server* server) {
  const bool is_own = range.shared && range.context->server == server;
  return range.kind == MemoryKind::alias || (range.has_one_address() && !is_own);
}

bool all_words_count() {
  static const bool wanted = [] {
    const char* text = std::getenv("OUTBOARD_PINNED_IN_STRUCTURES");
    return text != nullptr && std::strcmp(text, "1") == 0;
  }();
  return wanted;
}

// Copies on their way into pinned memory come before what reaches it; a captured stream has none.
CUresult wait_for_reads(const client::Server* server) {
  CUresult result = CUDA_SUCCESS;
  streams.for_each([&](Stream* stream) {
    if (stream->context->server != server || stream->progress.copies_pending.load() == 0) return;
    if (const CUresult waited = wait_all(stream); waited != CUDA_SUCCESS) result = waited;
  });
  return result;
}

}  // namespace

bool reserve_visible(size_t bytes, client::Window* place) {
  const uint64_t alignment = bytes >= large_page_bytes ? large_page_bytes : page_bytes;
  return client::reserve_place(client::Region::host, bytes, alignment, place);
}

void open_visible_window() { visible_window.open(client::region_window(client::Region::host)); }

void* make_visible_memory(size_t bytes) {
  client::Window place;
  if (!reserve_visible(bytes, &place)) return nullptr;
  auto* memory = reinterpret_cast<void*>(place.base);
  if (::mprotect(memory, place.bytes, PROT_READ | PROT_WRITE) != 0) {
    client::release_window(place);
    return nullptr;
  }
  open_visible_window();
  return memory;
}

void free_visible_memory(void* memory, size_t bytes) {
  ::munmap(memory, (bytes + page_bytes - 1) & ~(page_bytes - 1));
}

uint64_t alias_of(uint64_t registered) {
  const std::lock_guard guard(views().mutex);
  Range range;
  if (!addresses().find(registered, &range) || range.kind != MemoryKind::registered) return 0;
  if (range.partner == 0) {
    // At the same place within its page, on which programs build alignment.
    const uint64_t shift = range.base % page_bytes;
    client::Window place;
    if (!client::reserve_place(client::Region::host, range.bytes + shift, page_bytes, &place)) {
      return 0;
    }
    open_visible_window();
    Range alias = range;
    alias.base = place.base + shift;
    alias.kind = MemoryKind::alias;
    alias.partner = range.base;
    addresses().add(alias);
    addresses().set_partner(range.base, alias.base);
    range.partner = alias.base;
  }
  return range.partner + (registered - range.base);
}

bool find_host(uint64_t* address) {
  Range range;
  if (!addresses().find(*address, &range) || range.on_device()) return false;
  if (range.kind == MemoryKind::alias) *address = range.partner + (*address - range.base);
  return true;
}

CUresult Reach::add_visible(uint64_t address, bool is_guess) {
  Range range;
  if (!addresses().find(address, &range)) return CUDA_SUCCESS;
  if (!has_views(range, stream_->context->server)) return CUDA_SUCCESS;
  const bool is_leftover =
      is_guess && range.partner == 0 && range.bytes > most_cheap_bytes && !all_words_count();
  if (is_leftover) {
    leftovers_seen.store(true, std::memory_order_relaxed);
    return CUDA_SUCCESS;
  }
  return add_view(range.base);
}

CUresult Reach::add_view(uint64_t base) {
  if (std::find(views_.begin(), views_.end(), base) != views_.end()) return CUDA_SUCCESS;
  client::Server* server = stream_->context->server;
  const bool captured = in_graph_ || is_captured(stream_);
  if (!captured) {
    if (const CUresult result = wait_for_reads(server); result != CUDA_SUCCESS) return result;
  }
  const std::lock_guard guard(views().mutex);
  auto found = views().all.find({server, base});
  if (found == views().all.end()) {
    Range range;
    View view;
    if (!addresses().find(base, &range)) return CUDA_SUCCESS;
    if (const CUresult result = open_view(stream_->context, range, &view); result != CUDA_SUCCESS) {
      return result;
    }
    found = views().all.emplace(std::pair(server, base), std::move(view)).first;
    if (range.has_one_address()) addresses().set_partner(base, base);
  }
  View& view = found->second;
  if (const CUresult result = send_changes(view); result != CUDA_SUCCESS) return result;
  if (captured) {
    view.captured = true;
    return CUDA_SUCCESS;
  }
  if (view.uses.empty()) views_in_use.fetch_add(1);
  view.uses.push_back({stream_->head.id(), UINT64_MAX});
  views_.push_back(base);
  return CUDA_SUCCESS;
}

namespace {

using Lanes [[gnu::vector_size(16)]] = uint8_t;

// Whether any eight bytes could be an address of the visible window, which is as large as it is
// aligned: whether their upper half begins as its addresses do. Sixteen places at a time, since
// every launch of a program with pinned memory passes here.
bool may_hold_address(const std::byte* bytes, size_t count) {
  constexpr size_t low = 4, high = sizeof(uint64_t);
  if (count < high) return false;
  const uint64_t prefix = visible_window.base.load(std::memory_order_acquire);
  const uint64_t mask = ~(visible_window.bytes.load(std::memory_order_relaxed) - 1);
  Lanes kept[high], wanted[high];
  for (size_t i = low; i < high; ++i) {
    std::memset(&kept[i], static_cast<uint8_t>(mask >> 8 * i), sizeof kept[i]);
    std::memset(&wanted[i], static_cast<uint8_t>(prefix >> 8 * i), sizeof wanted[i]);
  }
  const size_t places = count - high + 1;
  size_t place = 0;
  Lanes found = {};
  for (; place + sizeof found <= places; place += sizeof found) {
    Lanes differs = {};
    for (size_t i = low; i < high; ++i) {
      Lanes here;
      std::memcpy(&here, bytes + place + i, sizeof here);
      differs |= (here & kept[i]) ^ wanted[i];
    }
    found |= differs == 0;
  }
  uint64_t halves[2];
  static_assert(sizeof halves == sizeof found);
  std::memcpy(halves, &found, sizeof halves);
  if ((halves[0] | halves[1]) != 0) return true;
  for (; place < places; ++place) {
    uint64_t word = 0;
    std::memcpy(&word, bytes + place, sizeof word);
    if ((word & mask) == prefix) return true;
  }
  return false;
}

}  // namespace

CUresult Reach::add_parameters(const Function* function, void** parameters) {
  for (uint32_t i = 0; i < function->parameter_count; ++i) {
    const auto* parameter = static_cast<const std::byte*>(parameters[i]);
    const CUresult result = add_words(parameter, function->parameters[i].bytes);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

CUresult Reach::add_packed(const Function* function, const std::byte* packed) {
  if (!may_hold_address(packed, function->parameters_bytes)) return CUDA_SUCCESS;
  for (uint32_t i = 0; i < function->parameter_count; ++i) {
    const Function::Parameter& parameter = function->parameters[i];
    const CUresult result = add_words(packed + parameter.offset, parameter.bytes);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

// A parameter, or what a structure begins with, is written by whoever passes it. Further inside,
// eight bytes that could be an address may also be what the stack held before.
CUresult Reach::add_words(const std::byte* parameter, size_t bytes) {
  if (!may_hold_address(parameter, bytes)) return CUDA_SUCCESS;
  for (size_t offset = 0; offset + sizeof(uint64_t) <= bytes; ++offset) {
    uint64_t word = 0;
    std::memcpy(&word, parameter + offset, sizeof word);
    if (!visible_window.contains(word)) continue;
    const CUresult result = add_visible(word, offset != 0);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

CUresult Reach::add_captured() {
  if (visible_window.empty()) return CUDA_SUCCESS;
  std::vector<uint64_t> bases;
  {
    const std::lock_guard guard(views().mutex);
    for (const auto& [key, view] : views().all) {
      if (view.captured && view.server == stream_->context->server) bases.push_back(view.base);
    }
  }
  for (const uint64_t base : bases) {
    if (const CUresult result = add_view(base); result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

CUresult Reach::add_all_stored() {
  const client::Server* server = stream_->context->server;
  std::vector<uint64_t> bases;
  {
    const std::lock_guard guard(views().mutex);
    auto next = views().stored.lower_bound({server, 0});
    for (; next != views().stored.end() && next->first == server; ++next) {
      bases.push_back(next->second);
    }
  }
  for (const uint64_t base : bases) {
    if (const CUresult result = add_visible(base, false); result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

// The command is among those issued by now; that others came between only makes it wait longer.
void Reach::note_sent() {
  const std::lock_guard guard(views().mutex);
  const uint64_t count = stream_->progress.issued.load();
  for (const uint64_t base : views_) {
    const auto found = views().all.find({stream_->context->server, base});
    if (found == views().all.end()) continue;
    std::vector<Use>& uses = found->second.uses;
    Use now{stream_->head.id(), count};
    // One entry for a stream is enough: its latest.
    std::erase_if(uses, [&](const Use& use) {
      return use.stream == now.stream && (use.count == UINT64_MAX || use.count <= count);
    });
    uses.push_back(now);
  }
}

CUresult fetch_views_slow() {
  const std::lock_guard guard(views().mutex);
  CUresult result = CUDA_SUCCESS;
  for (auto& [key, view] : views().all) {
    if (const CUresult fetched = fetch(view); fetched != CUDA_SUCCESS) result = fetched;
  }
  return result;
}

CUresult refresh_views_slow() {
  const std::lock_guard guard(views().mutex);
  for (auto& [key, view] : views().all) {
    if (view.uses.empty()) continue;
    if (const CUresult result = send_changes(view); result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

CUresult settle_views_slow(const void* memory, size_t bytes) {
  const auto* begin = static_cast<const std::byte*>(memory);
  std::vector<uint64_t> used_by;
  {
    const std::lock_guard guard(views().mutex);
    for (const auto& [key, view] : views().all) {
      const std::byte* end = view.memory.data() + view.memory.size();
      if (begin >= end || view.memory.data() >= begin + bytes) continue;
      for (const Use& use : view.uses) used_by.push_back(use.stream);
    }
  }
  if (used_by.empty()) return CUDA_SUCCESS;
  for (const uint64_t id : used_by) {
    Stream* stream = streams.find_id(id);
    if (stream == nullptr || is_captured(stream)) continue;
    if (const CUresult result = wait_all(stream); result != CUDA_SUCCESS) return result;
  }
  return fetch_views_slow();
}

void note_stored_slow(const client::Server* server, uint64_t to, const void* from, size_t bytes) {
  const auto* begin = static_cast<const std::byte*>(from);
  // Addresses lie at their alignment there.
  for (size_t at = -to % sizeof(uint64_t); at + sizeof(uint64_t) <= bytes; at += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, begin + at, sizeof word);
    if (!visible_window.contains(word)) [[likely]]
      continue;
    Range range;
    if (!addresses().find(word, &range) || !has_views(range, server)) continue;
    if (range.bytes > most_cheap_bytes && !all_words_count()) {
      leftovers_seen.store(true, std::memory_order_relaxed);
      continue;
    }
    const std::lock_guard guard(views().mutex);
    views().stored.insert({server, range.base});
    addresses_stored.store(true, std::memory_order_relaxed);
  }
}

CUresult open_view_of(const Range& range) {
  const std::lock_guard guard(views().mutex);
  View view;
  CUresult result = open_view(range.context, range, &view);
  // What runs already may change it.
  streams.for_each([&](const Stream* stream) {
    if (stream->context->server != view.server || stream->progress.idle()) return;
    view.uses.push_back({stream->head.id(), stream->progress.issued.load()});
  });
  if (result == CUDA_SUCCESS) result = fetch_changes(view);
  if (result == CUDA_SUCCESS) {
    if (!view.uses.empty()) views_in_use.fetch_add(1);
    views().all.insert_or_assign({view.server, range.base}, std::move(view));
  }
  return result;
}

CUresult find_for_graph(Context* context, uint64_t address, size_t bytes, bool* there) {
  *there = addresses().is_shared(context->server, address, bytes);
  Range range;
  if (*there || !addresses().find(address, &range) || range.kind != MemoryKind::managed ||
      bytes > range.bytes - (address - range.base)) {
    return CUDA_SUCCESS;
  }
  *there = true;
  return Reach(context->legacy, true).add_host(address);
}

void note_reached_by_all(uint64_t base) {
  const std::lock_guard guard(views().mutex);
  for (int i = 0; i < device_count; ++i) views().stored.insert({devices[i]->server, base});
  addresses_stored.store(true, std::memory_order_relaxed);
}

void end_views(uint64_t base) {
  const std::lock_guard guard(views().mutex);
  std::erase_if(views().stored, [&](const auto& stored) { return stored.second == base; });
  for (auto next = views().all.begin(); next != views().all.end();) {
    View& view = next->second;
    if (view.base != base) {
      ++next;
      continue;
    }
    fetch(view);
    drop_uses(view);
    view.server->connection().send(wire::command::HostUnmap{.address = base}, 0);
    next = views().all.erase(next);
  }
}

void forget_views(const Context* context) {
  const std::lock_guard guard(views().mutex);
  for (auto next = views().all.begin(); next != views().all.end();) {
    if (next->second.home != context) {
      ++next;
      continue;
    }
    drop_uses(next->second);
    next = views().all.erase(next);
  }
}

}  // namespace outboard::shim
