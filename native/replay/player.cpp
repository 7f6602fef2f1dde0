// Playing.
// SPDX-License-Identifier: Apache-2.0
#include "replay/player.hpp"

#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <thread>

#include "generated/protocol.hpp"
#include "link/link.hpp"
#include "replay/feeder.hpp"
#include "transport/tcp.hpp"
#include "worker/loop.hpp"
#include "worker/startup.hpp"

namespace outboard::replay {
namespace {

constexpr int longest_wait_ms = 30'000;
constexpr size_t most_differences = 100;

struct Pair {
  UniqueFd ours;
  UniqueFd theirs;
};

std::optional<Pair> make_pair_of(int type) {
  int fds[2];
  if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) != 0) return std::nullopt;
  return Pair{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

wire::FrameHeader header_of(const Record& record) {
  wire::FrameHeader header;
  std::memcpy(&header, record.content.data(), sizeof header);
  return header;
}

std::span<const std::byte> payload_of(const Record& record) {
  return std::span(record.content).subspan(sizeof(wire::FrameHeader));
}

// The shares that the recorded session had.
std::vector<uint64_t> shares_of(const std::vector<Record>& records) {
  std::vector<uint64_t> shares;
  for (const Record& record : records) {
    constexpr size_t prefix_bytes = 12;
    if (record.direction != Direction::welcome || record.content.size() <= prefix_bytes) continue;
    const auto* text = reinterpret_cast<const char*>(record.content.data());
    const auto welcome =
        nlohmann::json::parse(text + prefix_bytes, text + record.content.size(), nullptr, false);
    if (!welcome.is_object() || !welcome.contains("devices")) continue;
    shares.clear();
    for (const auto& device : welcome["devices"]) {
      shares.push_back(device.value("total_bytes", uint64_t{0}));
    }
  }
  return shares;
}

class Player {
 public:
  Player(const std::vector<Record>& records, const worker::Driver& driver)
      : records_(records), driver_(driver) {}
  Outcome run();

 private:
  bool open();
  bool send(const Record& record);
  bool await_welcome();
  bool await_answers(const Record& record);
  bool read_frame();
  void note_commands(std::span<const std::byte> batch);
  void compare(uint32_t request, int32_t expected);
  bool fail(std::string why) {
    if (outcome_.error.empty()) outcome_.error = std::move(why);
    return false;
  }

  const std::vector<Record>& records_;
  const worker::Driver& driver_;
  Outcome outcome_;
  worker::Share share_;
  Pair command_;
  std::unique_ptr<worker::Loop> loop_;
  std::unique_ptr<Feeder> feeder_;
  std::unique_ptr<link::FrameReceiver> receiver_;
  std::thread worker_;
  std::map<uint64_t, std::string> asked_;  ///< op by request
  std::map<uint64_t, int32_t> answered_;   ///< result by request
};

bool Player::open() {
  const std::vector<uint64_t> shares = shares_of(records_);
  if (shares.empty() || shares.size() > worker::Share::max_devices) {
    return fail("the recording has no welcome");
  }
  std::vector<std::pair<int, uint64_t>> claimed;
  claimed.reserve(shares.size());
  for (size_t i = 0; i < shares.size(); ++i) claimed.emplace_back(static_cast<int>(i), shares[i]);
  std::vector<worker::Device> devices;
  std::string error;
  if (!worker::claim_devices(driver_, claimed, {}, &devices, &error) ||
      !share_.open(worker::Share::make(shares.data(), static_cast<unsigned>(shares.size())), 0,
                   &error)) {
    return fail(error);
  }
  auto command = make_pair_of(SOCK_STREAM);
  auto bulk = make_pair_of(SOCK_STREAM);
  if (!command || !bulk) return fail("no socket could be made");
  command_ = std::move(*command);
  loop_ = std::make_unique<worker::Loop>(
      driver_, std::move(devices), share_, std::move(command_.theirs), nullptr,
      worker::Loop::Settings{std::string(32, '0'), OUTBOARD_RELEASE, nullptr});
  loop_->worker().bulk.add_connection(std::move(bulk->theirs));
  feeder_ = std::make_unique<Feeder>(std::move(bulk->ours));
  receiver_ = std::make_unique<link::FrameReceiver>(command_.ours.get());
  worker_ = std::thread([this] { outcome_.exit_code = loop_->run(); });
  return true;
}

void Player::note_commands(std::span<const std::byte> batch) {
  wire::BatchReader<wire::CommandHeader> commands(batch);
  wire::CommandHeader header;
  std::span<const std::byte> payload;
  while (commands.next(&header, &payload)) {
    ++outcome_.commands;
    if (!wire::is_op(header.op)) continue;
    const auto op = static_cast<wire::Op>(header.op);
    if (header.request != 0) asked_[header.request] = wire::op_name(op);
    wire::command::CopyToDeviceBulk copy;
    wire::Reader reader(payload);
    if (op == wire::Op::CopyToDeviceBulk && copy.decode(reader)) {
      feeder_->send(copy.stream, copy.copy, copy.bytes);
    }
  }
}

bool Player::send(const Record& record) {
  const wire::FrameHeader header = header_of(record);
  ++outcome_.frames;
  if (header.kind == wire::FrameKind::batch) note_commands(payload_of(record));
  iovec part{const_cast<std::byte*>(record.content.data()), record.content.size()};
  if (transport::send_all(command_.ours.get(), {&part, 1}) != transport::Status::ok) {
    return fail("the worker ended before the recording did");
  }
  return header.kind != wire::FrameKind::hello || await_welcome();
}

bool Player::await_welcome() {
  char head[12];
  if (transport::receive_all(command_.ours.get(), head, sizeof head, longest_wait_ms) !=
      transport::Status::ok) {
    return fail("no welcome came");
  }
  uint32_t bytes = 0;
  std::memcpy(&bytes, head + 8, sizeof bytes);
  std::string text(bytes, '\0');
  if (transport::receive_all(command_.ours.get(), text.data(), bytes, longest_wait_ms) !=
      transport::Status::ok) {
    return fail("the welcome is cut off");
  }
  if (text.find("\"window\":\"granted\"") == std::string::npos) {
    return fail("the recorded windows are taken here");
  }
  return true;
}

bool Player::read_frame() {
  link::Frame frame;
  switch (receiver_->next(&frame, longest_wait_ms)) {
    case link::Status::ok:
      break;
    case link::Status::again:
      return fail("an answer did not come within 30 s");
    default:
      return fail("the worker ended before the recording did");
  }
  if (frame.kind == wire::FrameKind::goodbye) {
    return fail(
        "the worker said: " +
        std::string(reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size()));
  }
  wire::BatchReader<wire::MessageHeader> messages(frame.payload);
  wire::MessageHeader header;
  std::span<const std::byte> payload;
  while (messages.next(&header, &payload)) {
    if (header.kind == wire::MessageKind::reply) answered_[header.subject] = header.result;
  }
  return true;
}

void Player::compare(uint32_t request, int32_t expected) {
  ++outcome_.replies;
  const int32_t result = answered_[request];
  answered_.erase(request);
  if (result != expected && outcome_.differences.size() < most_differences) {
    outcome_.differences.push_back(asked_[request] + " (request " + std::to_string(request) +
                                   ") gave " + std::to_string(result) + ", when recorded " +
                                   std::to_string(expected));
  }
  asked_.erase(request);
}

// The client had these answers before it went on, so what it sent next may rest on them.
bool Player::await_answers(const Record& record) {
  if (header_of(record).kind != wire::FrameKind::batch) return true;
  wire::BatchReader<wire::MessageHeader> messages(payload_of(record));
  wire::MessageHeader header;
  std::span<const std::byte> payload;
  while (messages.next(&header, &payload)) {
    if (header.kind != wire::MessageKind::reply) continue;
    while (!answered_.contains(header.subject)) {
      if (!read_frame()) return false;
    }
    compare(static_cast<uint32_t>(header.subject), header.result);
  }
  return true;
}

Outcome Player::run() {
  if (!open()) return std::move(outcome_);
  const auto begin = std::chrono::steady_clock::now();
  for (const Record& record : records_) {
    bool went_on = true;
    if (record.direction == Direction::to_server) went_on = send(record);
    if (record.direction == Direction::from_server) went_on = await_answers(record);
    if (!went_on) break;
  }
  outcome_.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  ::shutdown(command_.ours.get(), SHUT_RDWR);
  worker_.join();
  loop_.reset();
  feeder_.reset();
  return std::move(outcome_);
}

}  // namespace

Outcome play(const std::vector<Record>& records, const worker::Driver& driver) {
  return Player(records, driver).run();
}

}  // namespace outboard::replay
