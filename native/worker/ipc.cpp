// Memory and events that several processes of a session share.
// SPDX-License-Identifier: Apache-2.0
#include "worker/ipc.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/sha256.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

struct Parts {
  wire::WorkerId worker;
  wire::Token token;
};

Parts parts(const Interprocess::Name& name) {
  Parts both;
  std::memcpy(both.worker.data(), name.data(), both.worker.size());
  std::memcpy(both.token.data(), name.data() + both.worker.size(), both.token.size());
  return both;
}

// Another worker is another client's puppet: nothing that it says may lead outside what came.
bool makes_sense(const Worker& worker, const Packet& packet, const UniqueFd& fd) {
  constexpr uint64_t granule = Memory::granule_bytes;
  return fd && packet.device < worker.devices.size() && packet.chunk_bytes != 0 &&
         packet.chunk_bytes % granule == 0 && packet.offset < granule && packet.bytes != 0 &&
         packet.bytes <= packet.chunk_bytes - packet.offset;
}

}  // namespace

Interprocess::Interprocess(Worker& worker)
    : neighbours(
          [this](Packet* packet, std::shared_ptr<Claim>* claim) { return offer(packet, claim); }),
      worker_(worker) {}

void Interprocess::begin(const std::string& id) { from_hex(id, id_); }

bool Interprocess::is_own(const Name& name) const { return parts(name).worker == id_; }

CUresult Interprocess::name(wire::Shared shared, uint64_t object, wire::Token* token, Name* name) {
  if (*token == wire::Token{}) {
    if (::getrandom(token->data(), token->size(), 0) != static_cast<ssize_t>(token->size())) {
      *token = {};
      return CUDA_ERROR_OPERATING_SYSTEM;
    }
    sweep();
    objects_.emplace(*token, Object{shared, object});
  }
  std::memcpy(name->data(), id_.data(), id_.size());
  std::memcpy(name->data() + id_.size(), token->data(), token->size());
  return CUDA_SUCCESS;
}

// The token that whatever lives there now goes by; zeros where nothing does.
wire::Token Interprocess::token_of(const Object& object) const {
  switch (object.shared) {
    case wire::Shared::memory: {
      const Allocation* allocation = worker_.memory.begins_at(object.id);
      return allocation ? allocation->token : wire::Token{};
    }
    case wire::Shared::physical: {
      const PhysicalMemory* memory = worker_.virtual_memory.find(object.id);
      return memory ? memory->token : wire::Token{};
    }
    default: {
      const Event* event = worker_.tables.events.find(object.id);
      return event ? event->token : wire::Token{};
    }
  }
}

// Objects end without a word to this table; now and then their names are forgotten.
void Interprocess::sweep() {
  if (objects_.size() < sweep_at_) return;
  std::erase_if(objects_,
                [this](const auto& entry) { return token_of(entry.second) != entry.first; });
  sweep_at_ = std::max<size_t>(1024, 2 * objects_.size());
}

UniqueFd Interprocess::offer(Packet* packet, std::shared_ptr<Claim>* claim) {
  packet->kind = Packet::Kind::refused;
  packet->result = CUDA_ERROR_INVALID_HANDLE;
  const auto found = objects_.find(packet->token);
  if (found == objects_.end() || found->second.shared != packet->shared ||
      token_of(found->second) != packet->token) {
    return UniqueFd();
  }
  return offer(found->second, packet, claim);
}

UniqueFd Interprocess::offer(const Object& object, Packet* packet, std::shared_ptr<Claim>* claim) {
  UniqueFd fd;
  CUresult result = CUDA_SUCCESS;
  if (object.shared == wire::Shared::memory) {
    const Allocation& allocation = *worker_.memory.begins_at(object.id);
    Memory::Exported exported;
    result = worker_.memory.export_chunk(allocation, &exported);
    fd = std::move(exported.chunk);
    packet->device = allocation.device;
    packet->chunk_bytes = exported.chunk_bytes;
    packet->offset = exported.offset;
    packet->bytes = allocation.range.bytes;
    *claim = std::move(exported.claim);
  } else if (object.shared == wire::Shared::physical) {
    const PhysicalMemory& memory = *worker_.virtual_memory.find(object.id);
    fd = worker_.virtual_memory.export_memory(memory);
    if (!fd) result = CUDA_ERROR_INVALID_VALUE;
    packet->device = memory.device;
    packet->chunk_bytes = packet->bytes = memory.bytes;
    *claim = memory.claim;
  } else {
    const Event& event = *worker_.tables.events.find(object.id);
    worker_.make_current(*event.context);
    result = worker_.driver().cuIpcGetEventHandle(&packet->event, event.pinned->handle);
    packet->device = event.context->device;
  }
  packet->result = result;
  if (result == CUDA_SUCCESS) packet->kind = Packet::Kind::offer;
  return fd;
}

void Interprocess::fetch(const Name& name, wire::Shared shared, Neighbours::Answer answer) {
  const Parts both = parts(name);
  if (!is_own(name)) return neighbours.fetch(both.worker, both.token, shared, std::move(answer));
  Packet packet;
  packet.shared = shared;
  packet.token = both.token;
  std::shared_ptr<Claim> counted_already;
  UniqueFd fd = offer(&packet, &counted_already);
  answer(packet, std::move(fd));
}

std::shared_ptr<Claim> Interprocess::claim(const Name& name, const Packet& offer) {
  if (is_own(name)) {
    if (const PhysicalMemory* memory = worker_.virtual_memory.find(objects_[offer.token].id)) {
      return memory->claim;
    }
  }
  auto claim = std::make_shared<Claim>(worker_.share, offer.device, offer.chunk_bytes, false);
  const Parts both = parts(name);
  neighbours.hold(both.worker, both.token, claim);
  return claim;
}

// ---- commands -----------------------------------------------------------------------------------

CUresult execute(Worker& worker, const wire::command::MemoryExport& command,
                 wire::command::MemoryExport::Reply& reply) {
  const Allocation* holds = worker.memory.find(command.address, 1);
  Allocation* allocation = holds ? worker.memory.begins_at(holds->range.base) : nullptr;
  if (!allocation || allocation->imported) return CUDA_ERROR_INVALID_VALUE;
  return worker.interprocess.name(wire::Shared::memory, allocation->range.base, &allocation->token,
                                  &reply.token);
}

void execute(Worker& worker, const Request& request, const wire::command::MemoryImport& command) {
  const Context* asking = worker.current();
  if (!asking || worker.interprocess.is_own(command.token)) {
    return worker.answer(request, CUDA_ERROR_INVALID_CONTEXT);
  }
  const uint64_t id = asking->id;
  const auto name = command.token;
  worker.interprocess.fetch(
      name, wire::Shared::memory, [&worker, request, name, id](const Packet& packet, UniqueFd fd) {
        if (packet.kind != Packet::Kind::offer) {
          return worker.answer(request, static_cast<CUresult>(packet.result));
        }
        auto claim = worker.interprocess.claim(name, packet);
        const Context* context = worker.tables.contexts.find(id);
        if (!context) return worker.answer(request, CUDA_ERROR_CONTEXT_IS_DESTROYED);
        if (!makes_sense(worker, packet, fd)) {
          return worker.answer(request, CUDA_ERROR_INVALID_HANDLE);
        }
        worker.make_current(*context);
        wire::command::MemoryImport::Reply reply;
        CUdeviceptr address = 0;
        Memory::Exported chunk{std::move(fd), packet.chunk_bytes, packet.offset, std::move(claim)};
        const CUresult result = worker.memory.import_chunk(
            *context, packet.device, std::move(chunk), packet.bytes, &address);
        reply.address = address;
        reply.bytes = packet.bytes;
        worker.reply(request, result, reply);
      });
}

CUresult execute(Worker& worker, const wire::command::PhysicalExport& command,
                 wire::command::PhysicalExport::Reply& reply) {
  PhysicalMemory* memory = worker.virtual_memory.find(command.memory);
  if (!memory) return CUDA_ERROR_INVALID_HANDLE;
  return worker.interprocess.name(wire::Shared::physical, command.memory, &memory->token,
                                  &reply.token);
}

void execute(Worker& worker, const Request& request, const wire::command::PhysicalImport& command) {
  const auto name = command.token;
  const uint64_t id = command.memory;
  const auto take = [&worker, request, name, id](const Packet& packet, UniqueFd fd) {
    if (packet.kind != Packet::Kind::offer) {
      return worker.answer(request, static_cast<CUresult>(packet.result));
    }
    if (!makes_sense(worker, packet, fd)) return worker.answer(request, CUDA_ERROR_INVALID_HANDLE);
    if (!worker.accept_create(worker.virtual_memory.may_create(id))) return;
    wire::command::PhysicalImport::Reply reply;
    reply.bytes = packet.chunk_bytes;
    const CUresult result = worker.virtual_memory.import_memory(
        id, std::move(fd), worker.interprocess.claim(name, packet));
    worker.reply(request, result, reply);
  };
  worker.interprocess.fetch(name, wire::Shared::physical, take);
}

CUresult execute(Worker& worker, const wire::command::EventExport& command,
                 wire::command::EventExport::Reply& reply) {
  Event* event = worker.tables.events.find(command.event);
  if (!event || !event->interprocess()) return CUDA_ERROR_INVALID_HANDLE;
  return worker.interprocess.name(wire::Shared::event, command.event, &event->token, &reply.token);
}

void execute(Worker& worker, const Request& request, const wire::command::EventImport& command) {
  const Context* asking = worker.current();
  if (!asking || worker.interprocess.is_own(command.token)) {
    return worker.answer(request, CUDA_ERROR_INVALID_CONTEXT);
  }
  const uint64_t context_id = asking->id;
  const uint64_t id = command.event;
  const auto open = [&worker, request, context_id, id](const Packet& packet, const UniqueFd&) {
    if (packet.kind != Packet::Kind::offer) {
      return worker.answer(request, static_cast<CUresult>(packet.result));
    }
    const std::shared_ptr<Context> context = worker.tables.contexts.share(context_id);
    if (!context) return worker.answer(request, CUDA_ERROR_CONTEXT_IS_DESTROYED);
    worker.make_current(*context);
    CUevent handle = nullptr;
    const CUresult result = worker.driver().cuIpcOpenEventHandle(&handle, packet.event);
    if (result == CUDA_SUCCESS) {
      constexpr unsigned flags = CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING;
      if (!worker.accept_create(worker.tables.events.may_insert(id))) return;
      worker.tables.events.insert(
          id, make_event(context, id, flags, std::make_shared<DriverEvent>(context, handle)));
    }
    worker.answer(request, result);
  };
  worker.interprocess.fetch(command.token, wire::Shared::event, open);
}

void execute(Worker& worker, const Request& request, const wire::command::EventIssued& command) {
  const Event* event = worker.tables.events.find(command.event);
  if (!event) return worker.answer(request, CUDA_ERROR_INVALID_HANDLE);
  if (!event->latest) return worker.answer(request, CUDA_SUCCESS);
  worker.completion.when([record = event->latest] { return record->issued; },
                         [&worker, request](CUresult result) { worker.answer(request, result); });
}

}  // namespace outboard::worker
