// Writing the conversation.
// SPDX-License-Identifier: Apache-2.0
#include "fuzz/worker/conversation.hpp"

#include <cuda.h>

#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "base/sha256.hpp"
#include "generated/commands.hpp"
#include "wire/changes.hpp"
#include "wire/frame.hpp"
#include "wire/volume.hpp"
#include "worker/tests/window.hpp"

namespace outboard::fuzz {
namespace {

namespace command = wire::command;

constexpr uint64_t window = worker::test_window_base;
constexpr uint64_t first_large = window + (2 << 20);

constexpr std::string_view kernels =
    ".version 7.0\n.target sm_80\n.address_size 64\n.visible .global .align 4 .u32 counter;\n"
    ".visible .entry one(.param .u64 p)\n{\n  ret;\n}\n";

uint64_t id(uint32_t index) { return uint64_t{1} << 32 | index; }

class Script {
 public:
  void frame(wire::FrameKind kind, std::span<const std::byte> payload) {
    wire::FrameHeader header;
    header.payload_bytes = static_cast<uint32_t>(payload.size());
    header.kind = kind;
    header.number = ++number_;
    append(std::as_bytes(std::span(&header, 1)));
    append(payload);
  }
  template <typename Command>
  void add(const Command& command) {
    wire::CommandHeader header;
    header.payload_bytes = static_cast<uint32_t>(command.encoded_bytes());
    header.op = static_cast<uint16_t>(Command::op);
    header.context = 1;
    header.request = Command::klass == wire::Class::async ? 0 : ++request_;
    const size_t at = batch_.size();
    batch_.resize(at + sizeof header + header.payload_bytes);
    std::memcpy(batch_.data() + at, &header, sizeof header);
    wire::Writer writer(batch_.data() + at + sizeof header);
    command.encode(writer);
  }
  void send() {
    frame(wire::FrameKind::batch, batch_);
    batch_.clear();
  }
  Bytes take() { return std::move(bytes_); }

 private:
  void append(std::span<const std::byte> part) {
    bytes_.insert(bytes_.end(), part.begin(), part.end());
  }
  Bytes bytes_;
  Bytes batch_;
  uint64_t number_ = 0;
  uint32_t request_ = 0;
};

void memory(Script& script) {
  script.add(command::MemoryAllocate{.bytes = 1000});
  script.add(command::MemoryAllocate{.bytes = 4 << 20});
  script.add(command::MemoryAllocateOrdered{.stream = id(1), .bytes = 500});
  script.add(command::MemoryGetInfo{});
  const std::byte content[40] = {};
  script.add(
      command::CopyToDevice{.stream = id(1), .destination = window, .content = std::span(content)});
  script.add(command::CopyToHost{.stream = id(2), .copy = 1, .source = window, .bytes = 100});
  script.add(command::CopyToHostSync{.stream = id(1), .copy = 2, .source = window, .bytes = 64});
  script.add(
      command::CopyToHost{.stream = id(2), .copy = 3, .source = first_large, .bytes = 100'000});
  script.add(command::CopyToDeviceBulk{
      .stream = id(2), .copy = 4, .destination = first_large, .bytes = 3 << 20});
  script.add(command::CopyOnDevice{
      .stream = id(1), .destination = first_large, .source = window, .bytes = 10});
  script.add(command::Fill{.stream = id(1),
                           .destination = first_large,
                           .pitch = 0,
                           .value = 7,
                           .element_bytes = 4,
                           .width = 100,
                           .height = 1});
  script.send();
}

void managed_memory(Script& script) {
  constexpr uint64_t place = 0x3000'0000'0000;
  constexpr uint64_t granule = 2 << 20;
  script.add(command::AddressReserve{.address = place, .bytes = 4 * granule, .alignment = granule});
  script.add(command::PhysicalGranularity{.device = 0, .option = 1});
  script.add(command::PhysicalCreate{.memory = id(1), .bytes = granule});
  script.add(command::MemoryMap{.memory = id(1), .address = place, .bytes = granule});
  script.add(
      command::MemorySetAccess{.address = place, .bytes = granule, .device = 0, .access = 3});
  script.add(command::MemoryUnmap{.address = place, .bytes = granule});
  script.add(command::PhysicalRelease{.memory = id(1)});
  script.add(command::AddressFree{.address = place, .bytes = 4 * granule});
  constexpr uint64_t host = 0x4000'0000'0000;
  Bytes changes(wire::change_record_bytes);
  changes[8] = std::byte{3};
  script.add(command::HostMap{.address = host, .bytes = 10'000});
  script.add(command::HostWrite{.address = host, .changes = changes});
  script.add(command::HostRead{.address = host, .offset = 64});
  script.add(command::HostUnmap{.address = host});
  script.add(command::HostShare{.address = host, .bytes = 4096});
  script.send();
}

void volumes(Script& script) {
  CUDA_ARRAY3D_DESCRIPTOR descriptor = {};
  descriptor.Width = 16;
  descriptor.Height = 8;
  descriptor.Format = CU_AD_FORMAT_FLOAT;
  descriptor.NumChannels = 1;
  const auto bytes = std::as_bytes(std::span(&descriptor, 1));
  script.add(command::ArrayCreate{.array = id(1), .descriptor = bytes});
  script.add(command::MipmappedArrayCreate{.mipmap = id(1), .levels = 3, .descriptor = bytes});
  script.add(command::ArrayPart{.part = id(2), .mipmap = id(1), .number = 1});
  wire::VolumeEnd ends[2];
  ends[0].array = id(1);
  ends[1].address = window;
  ends[1].pitch = 40;
  ends[1].rows = 8;
  const auto both = std::as_bytes(std::span(ends));
  const std::byte content[64] = {};
  script.add(command::CopyVolume{
      .stream = id(1), .width_bytes = 32, .height = 8, .depth = 1, .ends = both});
  script.add(command::CopyVolumeToDevice{.stream = id(1),
                                         .width_bytes = 16,
                                         .height = 4,
                                         .depth = 1,
                                         .end = both.first(sizeof ends[0]),
                                         .content = content});
  script.add(command::CopyVolumeToHost{.stream = id(1),
                                       .width_bytes = 16,
                                       .height = 4,
                                       .depth = 1,
                                       .end = both.last(sizeof ends[0])});
  wire::Resource resource;
  resource.id = id(1);
  const CUDA_TEXTURE_DESC texture = {};
  script.add(command::TextureCreate{.resource = std::as_bytes(std::span(&resource, 1)),
                                    .texture = std::as_bytes(std::span(&texture, 1))});
  script.add(command::SurfaceCreate{.array = id(1)});
  script.add(command::TextureDestroy{.object = 1});
  script.add(command::SurfaceDestroy{.object = 1});
  script.add(command::ArrayDestroy{.array = id(1)});
  script.add(command::MipmappedArrayDestroy{.mipmap = id(1)});
  script.send();
}

void streams(Script& script) {
  script.add(command::StreamCreate{.stream = id(2), .flags = 1});
  script.add(command::StreamCreate{.stream = id(3), .flags = 0});
  script.add(command::EventCreate{.event = id(1)});
  script.add(command::EventCreate{.event = id(2)});
  script.add(command::EventRecord{.stream = id(3), .event = id(1)});
  script.add(command::StreamWaitEvent{.stream = id(2), .event = id(1)});
  script.add(command::EventRecord{.stream = id(2), .event = id(2)});
  script.add(command::EventQuery{.event = id(1)});
  script.add(command::EventSynchronize{.event = id(2)});
  script.add(command::EventElapsedTime{.start = id(1), .end = id(2)});
  script.add(command::StreamQuery{.stream = id(2)});
  script.add(command::HostFunction{.stream = id(3), .function = 1});
  script.add(command::HostFunctionDone{.function = 1});
  script.add(command::StreamSynchronize{.stream = id(3)});
  script.send();
}

void modules(Script& script) {
  const std::string image = std::string(kernels) + '\0';
  const auto bytes = std::as_bytes(std::span(image));
  const auto hash = sha256(bytes);
  script.add(command::ModuleImage{
      .hash = hash, .total_bytes = bytes.size(), .offset = 0, .content = bytes.first(50)});
  script.add(command::ModuleImage{
      .hash = hash, .total_bytes = bytes.size(), .offset = 50, .content = bytes.subspan(50)});
  const uint64_t options[] = {6, 500};
  script.add(command::ModuleLoad{.module = id(1), .library = 0, .hash = hash, .options = options});
  script.add(command::ModuleLoad{.module = id(2), .library = 1, .hash = hash});
  script.add(command::ContextSynchronize{});
  script.send();
  script.add(command::ModuleGetFunction{.module = id(1), .function = id(1), .name = "one"});
  script.add(command::ModuleGetFunction{.module = id(2), .function = id(2), .name = "one"});
  script.add(command::ModuleListFunctions{.module = id(2)});
  script.add(command::ModuleGetGlobal{.module = id(1), .name = "counter"});
  script.add(command::FunctionSetAttribute{.function = id(1), .attribute = 8, .value = 1024});
  script.add(command::FunctionSetCacheConfig{.function = id(1), .config = 1});
  script.add(command::Occupancy{.function = id(1), .kind = 0, .block = 128});
  const uint64_t address = window;
  command::Launch launch{.stream = id(2), .function = id(1)};
  launch.grid_x = launch.grid_y = launch.grid_z = 1;
  launch.block_x = launch.block_y = launch.block_z = 1;
  launch.params = std::as_bytes(std::span(&address, 1));
  for (int i = 0; i < 4; ++i) script.add(launch);
  launch.flags = 1;
  script.add(launch);
  const uint32_t types[] = {1};
  const uint64_t sizes[] = {bytes.size()};
  script.add(command::Link{
      .types = types, .sizes = sizes, .names = std::string_view("a\0", 2), .content = bytes});
  script.send();
}

// The first node that the worker names, and the first graph inside one.
constexpr uint64_t first_made = (uint64_t{1} << 63) + 1;

CUgraphNodeParams node_of(CUgraphNodeType type) {
  CUgraphNodeParams params = {};
  params.type = type;
  return params;
}

void nodes(Script& script) {
  script.add(command::GraphCreate{.graph = id(2)});
  CUgraphNodeParams params = node_of(CU_GRAPH_NODE_TYPE_MEMSET);
  params.memset.dst = window;
  params.memset.elementSize = 4;
  params.memset.width = params.memset.height = 1;
  const auto content = std::as_bytes(std::span(&params, 1));
  script.add(command::GraphAddNode{.graph = id(2), .content = content});
  params = node_of(CU_GRAPH_NODE_TYPE_HOST);
  params.host.userData = reinterpret_cast<void*>(uintptr_t{7});
  script.add(command::GraphAddNode{.graph = id(2), .content = content});
  params = node_of(CU_GRAPH_NODE_TYPE_EVENT_RECORD);
  params.eventRecord.event = reinterpret_cast<CUevent>(id(1));
  const uint64_t made[] = {first_made};
  script.add(command::GraphAddNode{.graph = id(2), .dependencies = made, .content = content});
  params = node_of(CU_GRAPH_NODE_TYPE_MEM_ALLOC);
  params.alloc.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  params.alloc.bytesize = 4096;
  script.add(command::GraphAddNode{.graph = id(2), .content = content});
  script.add(command::NodeSetParams{.node = first_made, .content = content});
  script.add(command::NodeGetParams{.node = first_made});
  script.add(command::NodeGetType{.node = first_made});
  script.add(command::NodeGetAttribute{.node = first_made, .attribute = 1});
  script.add(command::NodeCopyAttributes{.to = first_made, .from = first_made});
  script.add(command::GraphChangeEdges{.graph = id(2), .from = made, .to = made});
  script.add(command::GraphRetain{.graph = id(2), .object = 9, .count = 2});
  script.add(command::GraphRelease{.graph = id(2), .object = 9, .count = 1});
  script.add(command::GraphClone{.graph = id(2), .clone = id(3)});
  script.add(command::NodeFindInClone{.node = first_made, .clone = id(3)});
  script.add(command::GraphDescribe{.graph = id(2)});
  script.add(command::GraphDot{.graph = id(2)});
  script.add(command::GraphConditionalHandle{.graph = id(2), .value = 1, .flags = 1});
  script.add(command::NodeDestroy{.node = first_made});
  script.send();
}

void graphs(Script& script) {
  script.add(command::CaptureBegin{.stream = id(3), .graph = id(1)});
  script.add(command::EventRecord{.stream = id(3), .event = id(1)});
  script.add(command::CaptureDependencies{.stream = id(3)});
  script.add(command::CaptureSetDependencies{.stream = id(3)});
  script.add(command::CaptureAllocation{.stream = id(3), .bytes = 4096});
  script.add(command::CaptureFree{.stream = id(3), .address = window});
  script.add(command::CaptureEnd{.stream = id(3), .graph = id(1)});
  nodes(script);
  script.add(command::GraphInstantiate{.graph = id(1), .executable = id(1)});
  script.add(command::GraphUpload{.stream = id(3), .executable = id(1)});
  script.add(command::GraphLaunch{.stream = id(3), .executable = id(1)});
  script.add(command::GraphExecutableUpdate{.executable = id(1), .graph = id(2)});
  script.add(command::GraphExecutableSetEnabled{.executable = id(1), .node = first_made});
  script.add(command::GraphExecutableGetEnabled{.executable = id(1), .node = first_made});
  script.add(command::GraphExecutableSetParams{.executable = id(1), .node = first_made});
  script.add(command::GraphExecutableDestroy{.executable = id(1)});
  script.add(command::GraphDestroy{.graph = id(1)});
  script.add(command::GraphDestroy{.graph = id(2)});
  script.send();
}

void ending(Script& script) {
  script.add(command::StreamWriteValue{
      .stream = id(2), .address = window, .value = 1, .flags = 0, .width = 4});
  script.add(command::StreamWaitValue{
      .stream = id(2), .address = window, .value = 1, .flags = 0, .width = 4});
  script.add(command::ContextSetLimit{.limit = 0, .value = 4096});
  script.add(command::ProcessPrivateTable{});
  script.add(command::MemoryFreeOrdered{.stream = id(2), .address = first_large});
  script.add(command::MemoryFree{.address = window});
  script.add(command::ModuleUnload{.module = id(1)});
  script.add(command::EventDestroy{.event = id(1)});
  script.add(command::StreamDestroy{.stream = id(2)});
  script.add(command::ContextDestroy{.context = id(1), .reset = 1});
  script.send();
}

}  // namespace

Bytes make_conversation() {
  Script script;
  const std::string hello = R"({"pid": 0, "windows": [{"base": )" + std::to_string(window) +
                            R"(, "size": )" + std::to_string(worker::test_window_bytes) + "}]}";
  script.frame(wire::FrameKind::hello, std::as_bytes(std::span(hello)));
  script.add(command::ContextRetainPrimary{.context = id(1), .legacy_stream = id(1)});
  script.add(command::ContextCreate{.context = id(2), .legacy_stream = id(9)});
  script.send();
  streams(script);
  memory(script);
  managed_memory(script);
  volumes(script);
  script.frame(wire::FrameKind::acknowledge, {});
  modules(script);
  graphs(script);
  ending(script);
  script.frame(wire::FrameKind::goodbye, {});
  return script.take();
}

}  // namespace outboard::fuzz
