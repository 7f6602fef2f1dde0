// Two workers that share: what is asked, offered, held and given back, and one that talks nonsense.
// SPDX-License-Identifier: Apache-2.0
#include "worker/neighbours.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <string_view>

namespace outboard::worker {
namespace {

constexpr uint64_t mib = 1 << 20;
constexpr wire::WorkerId owner_id = {1, 2, 3};
constexpr wire::Token token = {9, 9};
const std::string owner_name = "01020300000000000000000000000000";

struct Pair {
  UniqueFd ends[2];
  Pair() {
    int fds[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0);
    ends[0].reset(fds[0]);
    ends[1].reset(fds[1]);
  }
};

// An importer whose agent notes for whom it was asked, and a page to count on.
struct Importer {
  Neighbours neighbours{[](Packet*, std::shared_ptr<Claim>*) { return UniqueFd(); }};
  std::vector<std::string> asked;
  Neighbours::Asked outcome = Neighbours::Asked::yes;
  std::vector<CUresult> answers;

  Importer() {
    neighbours.set_ask([this](const std::string& id) {
      asked.push_back(id);
      return outcome;
    });
  }
  void fetch() {
    neighbours.fetch(
        owner_id, token, wire::Shared::memory, [this](const Packet& packet, const UniqueFd& fd) {
          const bool offered = packet.kind == Packet::Kind::offer && fd;
          answers.push_back(offered ? CUDA_SUCCESS : static_cast<CUresult>(packet.result));
        });
  }
};

// An exporter that has one chunk behind the token.
struct Owner {
  std::shared_ptr<Claim> chunk;
  Neighbours neighbours{[this](Packet* packet, std::shared_ptr<Claim>* claim) {
    packet->kind = packet->token == token ? Packet::Kind::offer : Packet::Kind::refused;
    packet->result = CUDA_ERROR_INVALID_VALUE;
    if (packet->kind == Packet::Kind::refused) return UniqueFd();
    *claim = chunk;
    return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  }};
};

struct Page {
  Share share;
  Page() {
    const uint64_t limits[] = {100 * mib};
    std::string error;
    REQUIRE(share.open(Share::make(limits, 1), 0, &error));
  }
};

TEST_CASE("memory counts for its owner until the last who has it gives it back") {
  Page page;
  Pair pair;
  Importer importer;
  Owner owner;
  REQUIRE(page.share.reserve(0, 2 * mib));
  owner.chunk = std::make_shared<Claim>(page.share, 0, 2 * mib, true);
  importer.fetch();
  importer.fetch();
  REQUIRE(importer.asked == std::vector<std::string>{owner_name});  // once for both
  importer.neighbours.introduce(owner_name, std::move(pair.ends[0]));
  owner.neighbours.introduce("", std::move(pair.ends[1]));
  owner.neighbours.serve();
  importer.neighbours.serve();
  REQUIRE(importer.answers == std::vector<CUresult>{CUDA_SUCCESS, CUDA_SUCCESS});

  auto first = std::make_shared<Claim>(page.share, 0, 2 * mib, false);
  auto second = std::make_shared<Claim>(page.share, 0, 2 * mib, false);
  importer.neighbours.hold(owner_id, token, first);
  importer.neighbours.hold(owner_id, token, second);
  owner.chunk.reset();
  CHECK(page.share.held(0) == 2 * mib);
  first.reset();
  owner.neighbours.serve();
  CHECK(page.share.held(0) == 2 * mib);
  second.reset();
  owner.neighbours.serve();
  CHECK(page.share.held(0) == 0);
}

TEST_CASE("memory whose owner has ended counts for who has it") {
  Page page;
  Pair pair;
  Importer importer;
  importer.fetch();
  importer.neighbours.introduce(owner_name, std::move(pair.ends[0]));
  auto claim = std::make_shared<Claim>(page.share, 0, 3 * mib, false);
  importer.neighbours.hold(owner_id, token, claim);
  CHECK(page.share.held(0) == 0);
  pair.ends[1].reset();
  importer.neighbours.serve();
  CHECK(page.share.held(0) == 3 * mib);
  CHECK(importer.answers == std::vector<CUresult>{CUDA_ERROR_INVALID_HANDLE});
  claim.reset();
  CHECK(page.share.held(0) == 0);
}

TEST_CASE("who asks for what is not there is refused, and who talks nonsense is given up") {
  Importer importer;
  SUBCASE("no such worker") { importer.neighbours.introduce(owner_name, UniqueFd()); }
  SUBCASE("an agent that is gone for good") { importer.outcome = Neighbours::Asked::never; }
  importer.fetch();
  if (importer.answers.empty()) importer.neighbours.introduce(owner_name, UniqueFd());
  CHECK(importer.answers == std::vector<CUresult>{CUDA_ERROR_INVALID_HANDLE});

  for (const std::string_view nonsense : {std::string_view("short"), std::string_view()}) {
    Pair pair;
    Importer other;
    other.fetch();
    other.neighbours.introduce(owner_name, std::move(pair.ends[0]));
    Packet wrong;  // no answer at all
    const void* data = nonsense.empty() ? static_cast<const void*>(&wrong) : nonsense.data();
    const size_t bytes = nonsense.empty() ? sizeof wrong : nonsense.size();
    REQUIRE(::send(pair.ends[1].get(), data, bytes, 0) == static_cast<ssize_t>(bytes));
    other.neighbours.serve();
    CHECK(other.answers == std::vector<CUresult>{CUDA_ERROR_INVALID_HANDLE});
    CHECK(::send(pair.ends[1].get(), data, bytes, MSG_NOSIGNAL) < 0);
  }
}

TEST_CASE("what no agent could be asked is asked of the next one") {
  Importer importer;
  importer.outcome = Neighbours::Asked::later;
  importer.fetch();
  CHECK(importer.answers.empty());
  importer.outcome = Neighbours::Asked::yes;
  importer.neighbours.ask_again();
  CHECK(importer.asked == std::vector<std::string>{owner_name, owner_name});
  Pair pair;
  importer.neighbours.introduce(owner_name, std::move(pair.ends[0]));
  Packet asked;
  CHECK(::recv(pair.ends[1].get(), &asked, sizeof asked, MSG_DONTWAIT) == sizeof asked);
  CHECK(asked.kind == Packet::Kind::fetch);
  CHECK(asked.token == token);
}

}  // namespace
}  // namespace outboard::worker
