// Locking a worker in: seccomp and Landlock, by plain system calls.
// SPDX-License-Identifier: Apache-2.0
#include "worker/confinement.hpp"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/fds.hpp"
#include "base/log.hpp"

namespace outboard::worker {
namespace {

// ---- system calls -------------------------------------------------------------------------------

// Nothing of a driver: other processes, mounts, modules, keys, programs in the kernel, names and
// clocks of the machine, rings that pass this filter by, and other programs.
constexpr int refused[] = {
    // other processes
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_process_madvise,
    SYS_process_mrelease, SYS_pidfd_getfd, SYS_pidfd_send_signal, SYS_kcmp, SYS_tkill,
    SYS_migrate_pages, SYS_move_pages, SYS_fork, SYS_vfork, SYS_execve, SYS_execveat,
    // file systems and namespaces
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_open_tree, SYS_move_mount, SYS_fsopen,
    SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_mount_setattr, SYS_unshare, SYS_setns, SYS_swapon,
    SYS_swapoff, SYS_quotactl, SYS_quotactl_fd, SYS_name_to_handle_at, SYS_open_by_handle_at,
    SYS_fanotify_init, SYS_mknod, SYS_mknodat,
    // the kernel
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load,
    SYS_reboot, SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_keyctl, SYS_add_key,
    SYS_request_key, SYS_syslog, SYS_acct, SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_lookup_dcookie,
    SYS_uselib, SYS_ustat, SYS_sysfs, SYS_vhangup, SYS_io_uring_setup, SYS_io_uring_enter,
    SYS_io_uring_register,
    // the machine's names and clocks
    SYS_sethostname, SYS_setdomainname, SYS_settimeofday, SYS_clock_settime, SYS_clock_adjtime,
    SYS_adjtimex};

constexpr uint32_t allow = SECCOMP_RET_ALLOW;
constexpr uint32_t refuse(int error) { return SECCOMP_RET_ERRNO | static_cast<uint32_t>(error); }

class Program {
 public:
  Program() {
    load(offsetof(seccomp_data, arch));
    jump(BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0);
    end(SECCOMP_RET_KILL_PROCESS);
    load(offsetof(seccomp_data, nr));
    jump(BPF_JGE, 0x40000000, 0, 1);  // the x32 numbers
    end(refuse(ENOSYS));
  }

  void refuse_call(int number, int error = EPERM) {
    jump(BPF_JEQ, static_cast<uint32_t>(number), 0, 1);
    end(refuse(error));
  }

  // Allows a call whose argument, under a mask, has a value, and no other.
  void only(int number, unsigned argument, uint32_t mask, uint32_t value, int error) {
    jump(BPF_JEQ, static_cast<uint32_t>(number), 0, 5);
    load(offsetof(seccomp_data, args) + argument * sizeof(uint64_t));
    add(BPF_ALU | BPF_AND | BPF_K, mask);
    jump(BPF_JEQ, value, 0, 1);
    end(allow);
    end(refuse(error));
  }

  std::vector<sock_filter> finish() {
    end(allow);
    return std::move(code_);
  }

 private:
  void add(int kind, uint32_t value, uint8_t yes = 0, uint8_t no = 0) {
    code_.push_back({static_cast<uint16_t>(kind), yes, no, value});
  }
  void load(size_t at) { add(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(at)); }
  void jump(int how, uint32_t value, uint8_t yes, uint8_t no) {
    add(BPF_JMP | how | BPF_K, value, yes, no);
  }
  void end(uint32_t verdict) { add(BPF_RET | BPF_K, verdict); }

  std::vector<sock_filter> code_;
};

void filter_calls(bool own_user, bool may_connect) {
  const auto self = static_cast<uint32_t>(::getpid());
  Program program;
  program.only(SYS_socket, 0, UINT32_MAX, AF_UNIX, EAFNOSUPPORT);
  // Threads, no processes. The arguments of clone3 are out of a filter's reach: libc asks clone.
  program.only(SYS_clone, 0, CLONE_THREAD, CLONE_THREAD, EPERM);
  program.refuse_call(SYS_clone3, ENOSYS);
  // Where sessions have users, that tells them apart; workers of one ask whether the other lives.
  for (const int number : {SYS_kill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo}) {
    if (!own_user) program.only(number, 0, UINT32_MAX, self, EPERM);
  }
  program.only(SYS_personality, 0, UINT32_MAX, UINT32_MAX, EPERM);
  if (!may_connect) program.refuse_call(SYS_connect);
  for (const int number : refused) program.refuse_call(number);
  std::vector<sock_filter> code = program.finish();
  const sock_fprog form{static_cast<unsigned short>(code.size()), code.data()};
  // A worker's secrets are not its own driver's: nothing is gained by slower branches.
  if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &form) != 0) {
    say("worker: no system call filter: %s", std::strerror(errno));
  }
}

// ---- Landlock -----------------------------------------------------------------------------------

// As linux/landlock.h of Linux 6.12 has it: those of older systems know less.
struct Ruleset {
  uint64_t files = 0;
  uint64_t net = 0;
  uint64_t scoped = 0;
};
struct [[gnu::packed]] Beneath {
  uint64_t allowed = 0;
  int32_t parent = -1;
};
constexpr uint64_t execute = 1 << 0;
constexpr uint64_t write_file = 1 << 1;
constexpr uint64_t read_file = 1 << 2;
constexpr uint64_t read_folder = 1 << 3;
constexpr uint64_t truncate_file = 1 << 14;
constexpr uint64_t device_ioctl = 1 << 15;
constexpr uint64_t for_files = execute | write_file | read_file | truncate_file | device_ioctl;
constexpr uint64_t reading = execute | read_file | read_folder;
constexpr uint64_t all_net = 3;  // bind and connect of TCP
constexpr uint64_t scope_signal = 2;
constexpr unsigned version_flag = 1;
constexpr int beneath_rule = 1;

uint64_t all_files(long version) {
  const int known = version >= 5 ? 16 : version >= 3 ? 15 : version >= 2 ? 14 : 13;
  return (uint64_t{1} << known) - 1;
}

void permit(int ruleset, const std::string& path, uint64_t allowed) {
  const UniqueFd place(::open(path.c_str(), O_PATH | O_CLOEXEC));
  struct stat status = {};
  if (!place || ::fstat(place.get(), &status) != 0) return;  // not on this machine
  Beneath rule{S_ISDIR(status.st_mode) ? allowed : allowed & for_files, place.get()};
  if (::syscall(SYS_landlock_add_rule, ruleset, beneath_rule, &rule, 0) != 0) {
    say("worker: %s is out of its reach: %s", path.c_str(), std::strerror(errno));
  }
}

void permit_files(int ruleset, const Confinement& wanted, uint64_t all) {
  for (const char* path :
       {"/usr", "/lib", "/lib64", "/bin", "/sys", "/etc/ld.so.cache", "/etc/alternatives",
        "/etc/nvidia", "/etc/localtime", "/etc/machine-id", "/nix/store", "/run/opengl-driver"}) {
    permit(ruleset, path, reading & all);
  }
  for (const std::string& path : wanted.reads) permit(ruleset, path, reading & all);
  permit(ruleset, "/proc", (reading | write_file) & all);
  permit(ruleset, "/dev", (reading | write_file | device_ioctl) & all);
  permit(ruleset, "/dev/shm", all);
  if (!wanted.writes.empty()) permit(ruleset, wanted.writes, all);
}

void lock_land(const Confinement& wanted) {
  const long version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, version_flag);
  if (version < 0) {
    if (!wanted.own_files) say("worker: it keeps its user's files: the kernel has no Landlock");
    return;
  }
  Ruleset rules;
  if (!wanted.own_files) rules.files = all_files(version);
  if (version >= 4) rules.net = all_net;
  if (version >= 6 && !wanted.own_files) rules.scoped = scope_signal;
  if (rules.files == 0 && rules.net == 0 && rules.scoped == 0) return;
  const UniqueFd ruleset(
      static_cast<int>(::syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0)));
  if (ruleset && rules.files != 0) permit_files(ruleset.get(), wanted, rules.files);
  if (!ruleset || ::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0) {
    say("worker: Landlock does not hold it: %s", std::strerror(errno));
  }
}

// The sanitizers read, trace and clone what no worker has to.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool is_possible = false;
#else
constexpr bool is_possible = true;
#endif

}  // namespace

void confine(const Confinement& wanted) {
  if (!is_possible || !wanted.on) return;
  lock_land(wanted);
  filter_calls(wanted.own_files, wanted.own_files || wanted.calls_agent);
}

}  // namespace outboard::worker
