// The loop.
// SPDX-License-Identifier: Apache-2.0
#include "worker/loop.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.hpp"
#include "transport/tcp.hpp"
#include "worker/devices.hpp"

namespace outboard::worker {
namespace {

using namespace std::chrono_literals;

constexpr auto shortest_sleep = 10us;
constexpr auto longest_sleep = 200us;
constexpr auto fault_check_every = 1ms;
constexpr auto agent_call_every = 250ms;
constexpr auto orders_every = 1ms;  // while the client keeps it busy
constexpr auto shortest_look = 1ms;
constexpr auto longest_look = 100ms;
constexpr uint64_t acknowledge_every_bytes = 256 << 10;
constexpr unsigned frames_per_turn = 16;
// Bounds on what is kept for a client that does not read, and for streams that do not move.
constexpr size_t most_unsent_bytes = 16 << 20;
constexpr size_t most_backlog_bytes = 256 << 20;
constexpr size_t most_backlog_behind_host_bytes = size_t{1} << 30;

}  // namespace

Loop::Loop(const Driver& driver, std::vector<Device> devices, Share& share,
           transport::Connected command, Control* control, Settings settings)
    : wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      command_(std::move(command.fd)),
      tls_(std::move(command.tls)),
      control_(control),
      settings_(std::move(settings)),
      receiver_({command_.get(), tls_.get()}),
      sender_({command_.get(), tls_.get()}),
      worker_(
          driver, std::move(devices), share, settings_.text,
          [this](std::span<const std::byte> batch) { seal(batch); }, wake_.get()) {
  transport::set_options(command_.get());
  worker_.interprocess.begin(settings_.id);
  worker_.interprocess.neighbours.set_ask([this](const std::string& worker) {
    if (!control_ || (control_->fd() < 0 && !control_->lost())) return Neighbours::Asked::never;
    if (control_->fd() < 0) return Neighbours::Asked::later;
    control_->send_reach(worker);
    return Neighbours::Asked::yes;
  });
  ::prctl(PR_SET_TIMERSLACK, 1000UL);  // ns; sleeps of 10 µs would otherwise last 60
}

void Loop::end(int code, std::string line) {
  if (ended_) return;
  ended_ = code;
  if (!line.empty()) say_goodbye(line);
}

void Loop::say_goodbye(const std::string& line) {
  sender_.queue(wire::FrameKind::goodbye, std::as_bytes(std::span(line)), executed_);
  const auto until = Clock::now() + 200ms;
  while (sender_.queued_bytes() != 0 && Clock::now() < until) {
    pollfd one{command_.get(), POLLOUT, 0};
    ::poll(&one, 1, 50);
    if (sender_.flush() == link::Status::closed) return;
  }
}

void Loop::seal(std::span<const std::byte> batch) {
  unacknowledged_bytes_ = 0;
  if (sender_.queue(wire::FrameKind::batch, batch, executed_) == link::Status::closed) {
    end(exit_ended);
  }
}

void Loop::acknowledge() {
  if (unacknowledged_bytes_ < acknowledge_every_bytes) return;
  unacknowledged_bytes_ = 0;
  if (sender_.queue(wire::FrameKind::acknowledge, {}, executed_) == link::Status::closed) {
    end(exit_ended);
  }
}

// ---- frames -------------------------------------------------------------------------------------

void Loop::send_welcome(const std::string& json) {
  std::vector<std::byte> bytes = make_welcome(json);
  iovec part{bytes.data(), bytes.size()};
  if (transport::send_all({command_.get(), tls_.get()}, {&part, 1}) != transport::Status::ok)
    end(exit_ended);
}

void Loop::greet(std::span<const std::byte> payload) {
  using nlohmann::json;
  Hello hello;
  std::string error;
  if (!read_hello(payload, worker_.devices.size(), &hello, &error)) {
    return end(exit_protocol, error);
  }
  for (unsigned device = 0; device < hello.windows.size(); ++device) {
    if (worker_.memory.reserve_window(device, hello.windows[device])) continue;
    worker_.memory.free_windows();
    return send_welcome(json{{"window", "taken"}, {"device", device}}.dump());
  }
  int version = 0;
  worker_.driver().cuDriverGetVersion(&version);
  json devices = json::array();
  for (size_t i = 0; i < worker_.devices.size(); ++i) {
    devices.push_back(describe_device(worker_.driver(), worker_.devices, i));
  }
  json welcome = {{"worker", settings_.id},    {"release", settings_.release},
                  {"driver_version", version}, {"pid", ::getpid()},
                  {"devices", devices},        {"window", "granted"}};
  if (!settings_.memory_socket.empty() && is_on_this_host(hello)) {
    welcome["memory_socket"] = settings_.memory_socket;
  }
  greeted_ = true;
  worker_.usage.begin(hello);
  client_ = watch_client(hello);
  send_welcome(welcome.dump(-1, ' ', false, json::error_handler_t::replace));
}

void Loop::take(const link::Frame& frame) {
  unacknowledged_bytes_ += sizeof(wire::FrameHeader) + frame.payload.size();
  switch (frame.kind) {
    case wire::FrameKind::acknowledge:
      if (!frame.payload.empty()) end(exit_protocol, "an acknowledgement with a payload");
      return;
    case wire::FrameKind::goodbye:
      return end(exit_ended);
    case wire::FrameKind::hello:
      return greeted_ ? end(exit_protocol, "a hello in a session") : greet(frame.payload);
    case wire::FrameKind::batch:
      break;
  }
  if (!greeted_) return end(exit_protocol, "a batch before the hello");
  wire::BatchReader<wire::CommandHeader> batch(frame.payload);
  wire::CommandHeader header;
  std::span<const std::byte> payload;
  while (worker_.broken().empty() && batch.next(&header, &payload)) {
    if (header.payload_bytes % 8 != 0) {
      worker_.broken("a command whose length is no multiple of 8");
    } else {
      worker_.command(header, payload);
    }
  }
  if (!batch.ok()) worker_.broken("a command is longer than its batch");
  if (!worker_.broken().empty()) end(exit_protocol, worker_.broken());
}

// True if anything came.
bool Loop::receive() {
  bool moved = false;
  for (unsigned i = 0; i < frames_per_turn && !ended_ && !paused(); ++i) {
    link::Frame frame;
    switch (receiver_.next(&frame, 0)) {
      case link::Status::ok:
        take(frame);
        executed_ = frame.number;
        moved = true;
        continue;
      case link::Status::again:
        return moved;
      case link::Status::closed:
        end(exit_ended);
        return true;
      case link::Status::broken:
        end(exit_protocol, receiver_.error());
        return true;
    }
  }
  return moved;
}

// What cannot be taken in stays in the socket, and so with the client. Behind a host function the
// client has to be heard, or it could not say that the function is done.
bool Loop::paused() {
  if (sender_.queued_bytes() > most_unsent_bytes) return true;
  if (worker_.backlog_bytes() <= most_backlog_bytes) return false;
  if (!worker_.host_functions_pending()) return true;
  if (worker_.backlog_bytes() <= most_backlog_behind_host_bytes) return false;
  end(exit_failed, "more than 1 GiB of commands wait behind a host function");
  return true;
}

// ---- orders -------------------------------------------------------------------------------------

void Loop::obey() {
  if (!control_ || control_->fd() < 0) return;
  Order order = control_->receive();
  switch (order.kind) {
    case Order::Kind::bulk:
      transport::set_options(order.descriptors[0].get());
      worker_.bulk.add_connection(std::move(order.descriptors[0]), order.key);
      return;
    case Order::Kind::memory:
      return worker_.host_memory.connect(std::move(order.descriptors[0]));
    case Order::Kind::neighbour:
      return worker_.interprocess.neighbours.introduce(
          order.worker, order.descriptors.empty() ? UniqueFd() : std::move(order.descriptors[0]));
    case Order::Kind::end:
      return end(exit_ended, order.reason.empty() ? "the session was ended" : order.reason);
    case Order::Kind::closed:
      // The agent's death does not end a running program.
      control_->close();
      worker_.interprocess.neighbours.ask_again();
      return;
    default:
      return;
  }
}

void Loop::call_agent(Clock::time_point now) {
  if (!control_ || !control_->lost() || now - last_call_ < agent_call_every) return;
  last_call_ = now;
  control_->call();
  if (control_->fd() >= 0) worker_.interprocess.neighbours.ask_again();
}

// ---- waiting ------------------------------------------------------------------------------------

void Loop::sleep(std::chrono::nanoseconds longest) {
  pollfd fds[5] = {};
  nfds_t count = 0;
  const auto add = [&](int fd, short events) {
    if (fd < 0) return;
    fds[count++] = {fd, events, 0};
  };
  const short in = paused() ? 0 : POLLIN;
  const short out = sender_.queued_bytes() != 0 ? POLLOUT : 0;
  add(command_.get(), static_cast<short>(in | out));
  add(wake_.get(), POLLIN);
  add(client_.get(), POLLIN);
  add(control_ ? control_->fd() : -1, POLLIN);
  add(worker_.interprocess.neighbours.fd(), POLLIN);
  timespec limit{};
  limit.tv_nsec = longest.count();
  ::ppoll(fds, count, longest < 0ns ? nullptr : &limit, nullptr);
  for (nfds_t i = 0; i < count; ++i) {
    if (fds[i].revents == 0) continue;
    if (fds[i].fd == client_.get()) end(exit_ended);
    if (fds[i].fd == wake_.get()) {
      uint64_t ignored = 0;
      [[maybe_unused]] const ssize_t read = ::read(wake_.get(), &ignored, sizeof ignored);
    }
    if (control_ && fds[i].fd == control_->fd()) obey();
    if (fds[i].fd == worker_.interprocess.neighbours.fd()) worker_.interprocess.neighbours.serve();
    // While paused a hang-up would otherwise be reported without end and never read.
    if (fds[i].fd == command_.get() && in == 0 && (fds[i].revents & (POLLHUP | POLLERR)) != 0) {
      end(exit_ended);
    }
  }
}

// Until a descriptor says something, unless there is a reason to look before: no agent, or work of
// which nobody waits for the end; the longer that takes, the less often.
std::chrono::nanoseconds Loop::longest_wait(std::chrono::nanoseconds idle, bool unsettled) const {
  const bool alone = control_ && control_->lost();
  if (!unsettled) return alone ? agent_call_every : -1ns;
  return std::clamp<std::chrono::nanoseconds>(idle, shortest_look, longest_look);
}

void Loop::wait() {
  in_pause_ = true;
  const auto now = Clock::now();
  const auto idle = now - last_move_;
  const bool waiting = worker_.waiting();
  call_agent(now);
  if (waiting && now - last_check_ >= fault_check_every) {
    last_check_ = now;
    worker_.completion.check_for_faults();
    worker_.outbox.flush();
  }
  if (idle < spin_time_) return;
  if (spin_time_ != 0ns) {
    spin_.end(false);
    spin_time_ = 0ns;
  }
  const bool unsettled = worker_.settle(last_move_, idle >= shortest_look);
  if (!waiting) return sleep(longest_wait(idle, unsettled));
  sleep(std::clamp<std::chrono::nanoseconds>(idle / 16, shortest_sleep, longest_sleep));
}

int Loop::run() {
  while (!ended_) {
    bool moved = receive();
    moved |= worker_.poll();
    if (!worker_.broken().empty()) end(exit_protocol, worker_.broken());
    worker_.outbox.flush();
    acknowledge();
    if (sender_.queued_bytes() != 0 && sender_.flush() == link::Status::closed) end(exit_ended);
    if (worker_.bulk.ended()) {
      const std::string error = worker_.bulk.error();
      end(error.empty() ? exit_ended : exit_protocol, error);
    }
    if (ended_) break;
    if (moved) {
      if (std::exchange(in_pause_, false)) {
        if (spin_time_ != 0ns) spin_.end(true);
        spin_time_ = std::chrono::nanoseconds(spin_.begin());
      }
      last_move_ = Clock::now();
      worker_.usage.turned(last_move_);
      if (last_move_ - last_order_ >= orders_every) {
        last_order_ = last_move_;
        obey();
      }
    } else {
      wait();
    }
  }
  worker_.usage.settled(0, Clock::now());
  return *ended_;
}

}  // namespace outboard::worker
