// outboard-worker: executes one client process's CUDA commands on a driver of this host.
// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/log.hpp"
#include "worker/control.hpp"
#include "worker/devices.hpp"
#include "worker/loop.hpp"
#include "worker/startup.hpp"

namespace outboard::worker {
namespace {

constexpr int handshake_timeout_ms = 10'000;

int fail(Control* control, const std::string& message) {
  say("worker: %s", message.c_str());
  if (control) control->send_failed(message);
  return exit_failed;
}

int print_inventory(const Driver& driver) {
  std::string error;
  const std::string line = inventory(driver, &error);
  if (line.empty()) return fail(nullptr, error);
  std::printf("%s\n", line.c_str());
  return std::fflush(stdout) == 0 ? exit_ended : exit_failed;
}

// Waits until the agent gives this worker a client; `closed` where it will not.
Order wait_for_claim(Control& control) {
  for (;;) {
    pollfd one{control.fd(), POLLIN, 0};
    ::poll(&one, 1, -1);
    Order order = control.receive();
    if (order.kind == Order::Kind::claim || order.kind == Order::Kind::end ||
        order.kind == Order::Kind::closed) {
      return order;
    }
  }
}

bool protect(transport::Connected* command, const std::array<uint8_t, 32>& key) {
  std::string error;
  command->tls = transport::Tls::handshake(command->fd.get(), transport::Tls::Side::server, key,
                                           handshake_timeout_ms, &error);
  if (!command->tls) say("worker: no protected connection with the client: %s", error.c_str());
  return command->tls != nullptr;
}

int serve(const Driver& driver, const Options& options, Control& control, DeviceText& text,
          const std::map<int, uint64_t>& context_bytes) {
  Order claim = wait_for_claim(control);
  if (claim.kind != Order::Kind::claim) return exit_ended;
  std::vector<std::pair<int, uint64_t>> claimed;
  claimed.reserve(claim.devices.size());
  for (const auto& device : claim.devices) claimed.emplace_back(device.index, device.share_bytes);
  std::vector<Device> devices;
  Share share;
  std::string error;
  if (!claim_devices(driver, claimed, context_bytes, &devices, &error) ||
      !share.open(std::move(claim.descriptors[1]), claim.slot, &error)) {
    return fail(&control, error);
  }
  transport::Connected command(std::move(claim.descriptors[0]));
  if (claim.key && !protect(&command, *claim.key)) return exit_ended;
  Loop loop(driver, std::move(devices), share, std::move(command), &control,
            {options.id, OUTBOARD_RELEASE, &text, claim.memory_socket});
  const int code = loop.run();
  text.take_errors();
  // The driver and its threads are left as they are: what this process holds goes with it at once.
  ::_exit(code);
}

int run(int argc, char** argv) {
  Options options;
  std::string error;
  if (!read_options(argc, argv, &options, &error)) return fail(nullptr, error);
  use_legacy_layout(argv);
  restrict_process();
  for (const auto& [name, value] : options.environment) ::setenv(name.c_str(), value.c_str(), 1);
  Control control(UniqueFd(options.control_fd), options.agent_socket, options.id);
  Control* agent = options.inventory || options.rehearsal ? nullptr : &control;
  DeviceText text;
  if (agent && !text.capture()) return fail(agent, "no file in memory for what kernels say");
  // Before the driver: it and every thread that it starts are inside.
  confine(confinement_of(options));
  const auto driver = open_driver(options.driver, &error);
  if (!driver) return fail(agent, error);
  if (const CUresult result = driver->cuInit(0); result != CUDA_SUCCESS) {
    return fail(agent, options.driver + " does not start: " + error_name(*driver, result));
  }
  if (options.inventory) return print_inventory(*driver);
  if (options.rehearsal) {
    if (!warm(*driver, {0}).empty()) return exit_ended;
    return fail(nullptr, options.driver + " makes no context on its first device");
  }
  const auto context_bytes = warm(*driver, options.warm_devices);
  int version = 0;
  driver->cuDriverGetVersion(&version);
  text.take_errors();  // what the driver said, for the log
  control.send_ready(std::string(wire::protocol_hash_text), version);
  return serve(*driver, options, control, text, context_bytes);
}

}  // namespace
}  // namespace outboard::worker

int main(int argc, char** argv) { return outboard::worker::run(argc, argv); }
