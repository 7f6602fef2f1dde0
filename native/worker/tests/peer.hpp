// The client's end of a session, for tests: one worker in this process, its loop in a thread.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "link/link.hpp"
#include "transport/tcp.hpp"
#include "worker/loop.hpp"
#include "worker/startup.hpp"
#include "worker/tests/window.hpp"

namespace outboard::worker {

class Peer {
 public:
  struct Message {
    wire::MessageHeader header;
    std::vector<std::byte> payload;
  };
  template <typename Command>
  struct Answer {
    CUresult result = CUDA_ERROR_UNKNOWN;
    typename Command::Reply reply;
    std::vector<std::byte> payload;  ///< what the reply's spans point into
  };

  /// Each `share_bytes` is a device of the session, all of them the driver's first.
  explicit Peer(const Driver& driver, uint64_t share_bytes = uint64_t{1} << 30) {
    int command[2];
    int control[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, command) != 0 ||
        ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) != 0) {
      throw std::runtime_error("socketpair");
    }
    command_.reset(command[0]);
    agent_.reset(control[0]);
    control_ = std::make_unique<Control>(UniqueFd(control[1]));
    std::vector<Device> devices;
    std::string error;
    if (!claim_devices(driver, {{0, share_bytes}}, {}, &devices, &error) ||
        !share_.open(Share::make(&share_bytes, 1), 0, &error)) {
      throw std::runtime_error(error);
    }
    loop_ = std::make_unique<Loop>(driver, std::move(devices), share_, UniqueFd(command[1]),
                                   control_.get(), Loop::Settings{std::string(32, 'a'), "test"});
    receiver_ = std::make_unique<link::FrameReceiver>(command_.get());
    sender_ = std::make_unique<link::FrameSender>(command_.get());
    thread_ = std::thread([this] { code_ = loop_->run(); });
  }
  ~Peer() { finish(); }

  /// Ends the session; the worker's exit code.
  int finish() {
    if (thread_.joinable()) {
      ::shutdown(command_.get(), SHUT_RDWR);
      thread_.join();
      loop_.reset();
    }
    return code_;
  }
  /// Waits for the worker to end by itself.
  int join() {
    if (thread_.joinable()) thread_.join();
    loop_.reset();
    return code_;
  }

  void hello() {
    const std::string text = R"({"pid": 0, "windows": [{"base": )" +
                             std::to_string(test_window_base) + R"(, "size": )" +
                             std::to_string(test_window_bytes) + "}]}";
    sender_->send(wire::FrameKind::hello, std::as_bytes(std::span(text)), 0);
    std::byte head[12];
    receive_exactly(head, sizeof head);
    uint32_t length = 0;
    std::memcpy(&length, head + 8, sizeof length);
    welcome.resize(length);
    receive_exactly(welcome.data(), length);
  }

  /// The hello, and context 1 with its legacy stream 1.
  void start() {
    hello();
    wire::command::ContextRetainPrimary retain;
    retain.context = context = make_id();
    retain.legacy_stream = legacy = make_id();
    expect(call(retain).result);
  }
  uint64_t make_id() { return uint64_t{1} << 32 | next_index_++; }
  static void expect(CUresult result) {
    if (result != CUDA_SUCCESS) {
      throw std::runtime_error("a call failed with " + std::to_string(static_cast<int>(result)));
    }
  }

  template <typename Command>
  void append(const Command& command, uint32_t request = 0) {
    const size_t bytes = command.encoded_bytes();
    wire::CommandHeader header;
    header.payload_bytes = static_cast<uint32_t>(bytes);
    header.op = static_cast<uint16_t>(Command::op);
    header.context = index_of(context);
    header.request = request;
    if (batch_.size() + sizeof header + bytes > wire::max_frame_bytes) flush();
    const size_t at = batch_.size();
    batch_.resize(at + sizeof header + bytes);
    std::memcpy(batch_.data() + at, &header, sizeof header);
    wire::Writer writer(batch_.data() + at + sizeof header);
    command.encode(writer);
  }
  void flush() {
    if (batch_.empty()) return;
    sender_->send(wire::FrameKind::batch, batch_, receiver_->received());
    batch_.clear();
  }
  template <typename Command>
  void send(const Command& command) {
    append(command);
    flush();
  }
  template <typename Command>
  uint32_t ask(const Command& command) {
    append(command, ++last_request_);
    flush();
    return last_request_;
  }
  template <typename Command>
  Answer<Command> answer(uint32_t request) {
    Message message = take(wire::MessageKind::reply, request);
    Answer<Command> answer;
    answer.result = static_cast<CUresult>(message.header.result);
    answer.payload = std::move(message.payload);
    wire::Reader reader(answer.payload);
    if (!answer.payload.empty() && !answer.reply.decode(reader)) {
      throw std::runtime_error("a reply that cannot be decoded");
    }
    return answer;
  }
  template <typename Command>
  Answer<Command> call(const Command& command) {
    return answer<Command>(ask(command));
  }

  /// Waits for one message; what comes before it is kept for later calls.
  Message take(wire::MessageKind kind, uint64_t subject, bool any_subject = false) {
    for (;;) {
      for (auto message = messages.begin(); message != messages.end(); ++message) {
        if (message->header.kind != kind) continue;
        if (!any_subject && message->header.subject != subject) continue;
        Message found = std::move(*message);
        messages.erase(message);
        return found;
      }
      read_frame(20'000);
    }
  }
  /// Whether a message is there once all that was sent so far has been answered.
  bool has(wire::MessageKind kind) const {
    for (const Message& message : messages) {
      if (message.header.kind == kind) return true;
    }
    return false;
  }
  void read_frame(int timeout_ms) {
    link::Frame frame;
    const link::Status status = receiver_->next(&frame, timeout_ms);
    if (status != link::Status::ok)
      throw std::runtime_error("no frame came: " + receiver_->error());
    if (frame.kind == wire::FrameKind::goodbye) {
      throw std::runtime_error(
          std::string(reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size()));
    }
    wire::BatchReader<wire::MessageHeader> batch(frame.payload);
    wire::MessageHeader header;
    std::span<const std::byte> payload;
    while (batch.next(&header, &payload)) {
      if (header.kind == wire::MessageKind::progress) {
        for (size_t at = 0; at < payload.size(); at += sizeof(wire::Progress)) {
          wire::Progress progress;
          std::memcpy(&progress, payload.data() + at, sizeof progress);
          completed[progress.stream] = progress.completed;
        }
        continue;
      }
      messages.push_back({header, {payload.begin(), payload.end()}});
    }
  }

  /// Opens a bulk connection through the agent's hands.
  int open_bulk() { return open_another("bulk"); }
  /// The same of one for shared memory, once the worker has it.
  int open_memory() {
    const int socket = open_another("memory");
    char ready[sizeof wire::memory_ready];
    if (transport::receive_all(socket, ready, sizeof ready, 20'000) != transport::Status::ok) {
      throw std::runtime_error("the worker took no connection for memory");
    }
    return socket;
  }
  int open_another(const std::string& purpose) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
      throw std::runtime_error("socketpair");
    }
    const int ours = others_.emplace_back(pair[0]).get();
    const UniqueFd theirs(pair[1]);
    std::string text = R"({"type": ")" + purpose + "\"}";
    iovec part{text.data(), text.size()};
    alignas(cmsghdr) char rights[CMSG_SPACE(sizeof(int))] = {};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = rights;
    message.msg_controllen = sizeof rights;
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = theirs.get();
    std::memcpy(CMSG_DATA(head), &fd, sizeof fd);
    ::sendmsg(agent_.get(), &message, 0);
    return ours;
  }

  uint64_t allocate(uint64_t bytes) {
    wire::command::MemoryAllocate command;
    command.bytes = bytes;
    const auto made = call(command);
    expect(made.result);
    return made.reply.address;
  }
  uint64_t load(std::string_view ptx) {
    std::string image(ptx);
    image.push_back('\0');
    wire::command::ModuleImage piece;
    piece.hash = sha256(std::as_bytes(std::span(image)));
    piece.total_bytes = image.size();
    piece.content = std::as_bytes(std::span(image));
    append(piece);
    wire::command::ModuleLoad load;
    load.module = make_id();
    load.hash = piece.hash;
    const auto loaded = call(load);
    expect(loaded.result);
    return load.module;
  }
  uint64_t function(uint64_t module, std::string_view name) {
    wire::command::ModuleGetFunction get;
    get.module = module;
    get.function = make_id();
    get.name = name;
    expect(call(get).result);
    return get.function;
  }
  uint64_t stream(unsigned flags = CU_STREAM_NON_BLOCKING) {
    wire::command::StreamCreate create;
    create.stream = make_id();
    create.flags = flags;
    append(create);
    return create.stream;
  }
  uint64_t event() {
    wire::command::EventCreate create;
    create.event = make_id();
    append(create);
    return create.event;
  }
  CUresult synchronize(uint64_t stream) {
    wire::command::StreamSynchronize command;
    command.stream = stream;
    return call(command).result;
  }

  link::FrameSender& sender() { return *sender_; }
  int command_fd() const { return command_.get(); }

  uint64_t context = 0;
  uint64_t legacy = 0;
  std::string welcome;
  std::deque<Message> messages;
  std::map<uint64_t, uint64_t> completed;

 private:
  void receive_exactly(void* to, size_t bytes) {
    if (transport::receive_all(command_.get(), to, bytes, 20'000) != transport::Status::ok) {
      throw std::runtime_error("no welcome came");
    }
  }

  Share share_;
  UniqueFd command_;
  UniqueFd agent_;
  std::vector<UniqueFd> others_;
  std::unique_ptr<Control> control_;
  std::unique_ptr<Loop> loop_;
  std::unique_ptr<link::FrameReceiver> receiver_;
  std::unique_ptr<link::FrameSender> sender_;
  std::thread thread_;
  int code_ = -1;
  uint32_t next_index_ = 1;
  uint32_t last_request_ = 0;
  std::vector<std::byte> batch_;
};

}  // namespace outboard::worker
