//! What the kernel does with each system call of a watched command: lets it pass, lets it fail, or
//! hands it to the listener.
//!
//! The filter looks at numbers only: the call, and arguments that are no addresses. What stands
//! at an address may be another thing by the time the kernel reads it.

use std::ffi::c_long;

/// Calls that take a path, or a descriptor of a file that they change; those by which a process
/// leaves its group; and those that connect.
const WATCHED: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_openat2,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_truncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_chdir,
    libc::SYS_statfs,
    libc::SYS_inotify_add_watch,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_tree,
    libc::SYS_connect,
    libc::SYS_setsid,
    libc::SYS_setpgid,
    late::FCHMODAT2,
    late::SETXATTRAT,
    late::GETXATTRAT,
    late::LISTXATTRAT,
    late::REMOVEXATTRAT,
    late::FILE_GETATTR,
    late::FILE_SETATTR,
];

/// The same numbers everywhere; younger than some of the C libraries that are built with.
pub(super) mod late {
    use std::ffi::c_long;

    pub const FCHMODAT2: c_long = 452;
    pub const SETXATTRAT: c_long = 463;
    pub const GETXATTRAT: c_long = 464;
    pub const LISTXATTRAT: c_long = 465;
    pub const REMOVEXATTRAT: c_long = 466;
    pub const OPEN_TREE_ATTR: c_long = 467;
    pub const FILE_GETATTR: c_long = 468;
    pub const FILE_SETATTR: c_long = 469;
}

/// Their forefathers, which younger architectures never had.
#[cfg(target_arch = "x86_64")]
const OLD_WATCHED: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_creat,
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_WATCHED: &[c_long] = &[];

/// Calls that no command needs and by which a privileged one acts on the machine: they fail with
/// `EPERM` for every caller.
const REFUSED: &[c_long] = &[
    // Paths would lead elsewhere than the watcher thinks.
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_tree,
    late::OPEN_TREE_ATTR,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_setns,
    // Files without a path.
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    // Keys of the user and of the session.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The machine.
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

/// Calls that cannot be done for a command, and that callers do without where they are missing.
const MISSING: &[c_long] = &[late::SETXATTRAT, late::REMOVEXATTRAT, late::FILE_SETATTR];

/// Queues with names that all processes of the machine share.
const NAMED_QUEUES: &[c_long] = &[libc::SYS_mq_open, libc::SYS_mq_unlink];

/// Calls that may name another process: 0 is the caller itself.
const ON_OTHERS: &[c_long] = &[
    libc::SYS_prlimit64,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setaffinity,
];

/// Those that may name groups and users as well.
const ON_MANY: &[c_long] = &[libc::SYS_setpriority, libc::SYS_ioprio_set];

/// Calls that send a signal.
const SIGNALS: &[c_long] = &[
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
];

/// F_SETOWN and F_SETOWN_EX, FIOSETOWN and SIOCSPGRP: who gets a signal when a file can be read
/// from.
const OWNER_COMMANDS: [u32; 2] = [8, 15];
const OWNER_IOCTLS: [u32; 2] = [0x8901, 0x8902];

/// F_SETLEASE and F_NOTIFY, and F_SETDELEG of Linux 6.19: a process that may read a file could keep others
/// from opening it, or be notified of what they do with it.
const REFUSED_FILE_COMMANDS: [u32; 3] = [1024, 1026, 1040];

/// TIOCSTI and TIOCLINUX type into a terminal, TIOCCONS takes its output away; FS_IOC_SETVERSION
/// needs no right to write to a file.
const REFUSED_IOCTLS: [u32; 5] = [0x5412, 0x541c, 0x541d, 0x4008_7602, 0x4004_7602];

/// Kinds of `ioctl` that change files which need not be open for writing: attributes, labels,
/// whole file systems; and those of them that do not.
const FILE_IOCTLS: [u32; 3] = [b'f' as u32, b'X' as u32, 0x94];
const HARMLESS_FILE_IOCTLS: [u32; 7] = [
    // FS_IOC_GETFLAGS, FS_IOC32_GETFLAGS, FS_IOC_FIEMAP
    0x8008_6601,
    0x8004_6601,
    0xc020_660b,
    // FS_IOC_FSGETXATTR
    0x801c_581f,
    // FICLONE, FICLONERANGE, FIDEDUPERANGE
    0x4004_9409,
    0x4020_940d,
    0xc018_9436,
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: Option<u32> = None;

/// Offsets into `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

/// What a command is held to beside what is watched.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Whether Landlock keeps its signals among its own processes.
    pub scopes_signals: bool,
    /// Whether Landlock asks who may use the `ioctl`s of a device.
    pub guards_devices: bool,
    /// Whether it has queues and shared memory of its own.
    pub has_own_queues: bool,
}

const PASS: u32 = libc::SECCOMP_RET_ALLOW;
const ASK: u32 = libc::SECCOMP_RET_USER_NOTIF;

const fn fail(error: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | error as u32
}

/// A filter in the making: one comparison per call, which the kernel works out once per number
/// where no argument is looked at.
struct Program(Vec<libc::sock_filter>);

impl Program {
    fn step(&mut self, code: u32, k: u32, jt: u8, jf: u8) {
        self.0.push(libc::sock_filter {
            code: code as u16,
            jt,
            jf,
            k,
        });
    }

    fn load(&mut self, offset: u32) {
        self.step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    }

    /// Loads the lower half of an argument: of an `int` the kernel takes no more.
    fn load_argument(&mut self, index: u32) {
        let low = if cfg!(target_endian = "little") { 0 } else { 4 };
        self.load(ARGUMENTS_AT + 8 * index + low);
    }

    fn answer(&mut self, action: u32) {
        self.step(libc::BPF_RET | libc::BPF_K, action, 0, 0);
    }

    /// Skips what follows, `skipped` steps, unless what was loaded is `value`.
    fn if_equal(&mut self, value: u32, skipped: usize) {
        let skipped = u8::try_from(skipped).unwrap_or(u8::MAX);
        self.step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            value,
            0,
            skipped,
        );
    }

    fn and(&mut self, mask: u32) {
        self.step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0);
    }

    /// Answers if what was loaded is `value`.
    fn answer_if(&mut self, value: u32, action: u32) {
        self.if_equal(value, 1);
        self.answer(action);
    }

    /// Answers all these calls alike.
    fn all(&mut self, calls: &[c_long], action: u32) {
        for call in calls {
            self.answer_if(*call as u32, action);
        }
    }

    /// Decides further, by arguments, if what was loaded is `value`; that must end with an answer.
    fn when(&mut self, value: c_long, decide: impl FnOnce(&mut Self)) {
        let mut decision = Self(Vec::new());
        decide(&mut decision);
        self.if_equal(value as u32, decision.0.len());
        self.0.extend(decision.0);
    }
}

/// Returns the filter, `held` to more or only watched. `None` for an architecture whose numbers
/// are not known here.
pub fn program(held: Option<Held>) -> Option<Vec<libc::sock_filter>> {
    /// Calls of x32 have this bit.
    const X32: u32 = 0x4000_0000;
    let unless_held = |error: i32| held.map_or(PASS, |_| fail(error));
    let mut program = Program(Vec::new());
    program.load(ARCHITECTURE_AT);
    // Programs of another architecture have other numbers: they are not watched.
    program.step(
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        ARCHITECTURE?,
        1,
        0,
    );
    program.answer(unless_held(libc::ENOSYS));
    program.load(NUMBER_AT);
    program.step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32, 0, 1);
    program.answer(unless_held(libc::ENOSYS));
    // Files could be opened through a ring unseen; who finds none opens them himself.
    program.answer_if(libc::SYS_io_uring_setup as u32, fail(libc::ENOSYS));
    if let Some(held) = held {
        hold(&mut program, held);
    }
    program.all(WATCHED, ASK);
    program.all(OLD_WATCHED, ASK);
    program.answer(PASS);
    Some(program.0)
}

/// Adds what a command on a stage must not do.
fn hold(program: &mut Program, held: Held) {
    program.when(libc::SYS_ioctl, |on| ioctl(on, held));
    program.when(libc::SYS_fcntl, |on| fcntl(on, held));
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        program.when(call, socket);
    }
    program.all(REFUSED, fail(libc::EPERM));
    program.all(MISSING, fail(libc::ENOSYS));
    if !held.has_own_queues {
        program.all(NAMED_QUEUES, fail(libc::EACCES));
    }
    for call in ON_OTHERS {
        program.when(*call, |on| {
            on.load_argument(0);
            on.answer_if(0, PASS);
            on.answer(ASK);
        });
    }
    program.all(ON_MANY, ASK);
    if !held.scopes_signals {
        program.all(SIGNALS, ASK);
        // Whom a descriptor means could be another one after a look.
        program.answer_if(libc::SYS_pidfd_send_signal as u32, fail(libc::ENOSYS));
    }
    if !held.guards_devices {
        // Who opens a file for neither reading nor writing may use its `ioctl`s, and needs no
        // right for that; of `openat2` the flags stand at an address.
        program.answer_if(libc::SYS_openat2 as u32, fail(libc::ENOSYS));
        program.when(libc::SYS_openat, |open| unless_for_ioctl(open, 2));
        #[cfg(target_arch = "x86_64")]
        program.when(libc::SYS_open, |open| unless_for_ioctl(open, 1));
    }
}

fn unless_for_ioctl(program: &mut Program, flags: u32) {
    program.load_argument(flags);
    program.and(libc::O_ACCMODE as u32 | libc::O_PATH as u32);
    program.answer_if(libc::O_ACCMODE as u32, fail(libc::EACCES));
    program.answer(ASK);
}

fn fcntl(program: &mut Program, held: Held) {
    program.load_argument(1);
    for command in REFUSED_FILE_COMMANDS {
        program.answer_if(command, fail(libc::EPERM));
    }
    // Who gets the signals of a file that can be read from again.
    for command in OWNER_COMMANDS.iter().filter(|_| !held.scopes_signals) {
        program.answer_if(*command, fail(libc::EPERM));
    }
    program.answer(PASS);
}

fn ioctl(program: &mut Program, held: Held) {
    program.load_argument(1);
    for request in OWNER_IOCTLS.iter().filter(|_| !held.scopes_signals) {
        program.answer_if(*request, fail(libc::EPERM));
    }
    for request in REFUSED_IOCTLS {
        program.answer_if(request, fail(libc::EPERM));
    }
    for request in HARMLESS_FILE_IOCTLS {
        program.answer_if(request, PASS);
    }
    program.and(0xff00);
    for kind in FILE_IOCTLS {
        program.answer_if(kind << 8, fail(libc::EPERM));
    }
    program.answer(PASS);
}

/// Other kinds than these act on the machine, or reach others by no rule. Datagrams of this machine
/// need no connection: where they go stands at an address of each call that sends them.
fn socket(program: &mut Program) {
    program.load_argument(0);
    program.answer_if(libc::AF_INET as u32, PASS);
    program.answer_if(libc::AF_INET6 as u32, PASS);
    program.when(libc::AF_UNIX.into(), |unix| {
        unix.load_argument(1);
        unix.and(0xf);
        unix.answer_if(libc::SOCK_STREAM as u32, PASS);
        unix.answer_if(libc::SOCK_SEQPACKET as u32, PASS);
        unix.answer(fail(libc::EACCES));
    });
    // By it programs ask for the addresses of this machine.
    program.when(libc::AF_NETLINK.into(), |netlink| {
        netlink.load_argument(2);
        netlink.answer_if(libc::NETLINK_ROUTE as u32, PASS);
        netlink.answer(fail(libc::EPROTONOSUPPORT));
    });
    program.answer(fail(libc::EAFNOSUPPORT));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel does.
    fn answer(held: Option<Held>, call: c_long, args: &[u64]) -> u32 {
        let program = program(held).expect("a known architecture");
        let mut data = [0u8; 64];
        data[..4].copy_from_slice(&(call as u32).to_ne_bytes());
        data[4..8].copy_from_slice(&ARCHITECTURE.expect("known").to_ne_bytes());
        for (i, arg) in args.iter().enumerate() {
            data[16 + 8 * i..24 + 8 * i].copy_from_slice(&arg.to_ne_bytes());
        }
        let (mut at, mut loaded) = (0, 0u32);
        loop {
            let step = &program[at];
            at += 1;
            let class = u32::from(step.code) & 7;
            match class {
                libc::BPF_LD => {
                    let bytes = &data[step.k as usize..step.k as usize + 4];
                    loaded = u32::from_ne_bytes(bytes.try_into().expect("four"));
                }
                libc::BPF_ALU => loaded &= step.k,
                libc::BPF_RET => return step.k,
                _ => {
                    let is_equal = u32::from(step.code) & 0xf0 == libc::BPF_JEQ;
                    let holds = if is_equal {
                        loaded == step.k
                    } else {
                        loaded >= step.k
                    };
                    at += usize::from(if holds { step.jt } else { step.jf });
                }
            }
        }
    }

    const NEW: Held = Held {
        scopes_signals: true,
        guards_devices: true,
        has_own_queues: false,
    };
    const OLD: Held = Held {
        scopes_signals: false,
        guards_devices: false,
        has_own_queues: true,
    };

    #[test]
    fn each_call_is_answered() {
        let no = fail(libc::EPERM);
        let unix = libc::AF_UNIX as u64;
        let table: &[(c_long, &[u64], [u32; 3])] = &[
            // Only watched, held by a new kernel, held by an old one.
            (libc::SYS_read, &[], [PASS; 3]),
            (libc::SYS_openat, &[0, 0, 0], [ASK; 3]),
            (libc::SYS_openat, &[0, 0, 3], [ASK, ASK, fail(libc::EACCES)]),
            (libc::SYS_openat, &[0, 0, 3 | libc::O_PATH as u64], [ASK; 3]),
            (libc::SYS_openat2, &[], [ASK, ASK, fail(libc::ENOSYS)]),
            (libc::SYS_mount, &[], [PASS, no, no]),
            (libc::SYS_chroot, &[], [PASS, no, no]),
            (libc::SYS_io_uring_setup, &[], [fail(libc::ENOSYS); 3]),
            (libc::SYS_kill, &[7], [PASS, PASS, ASK]),
            (
                libc::SYS_pidfd_send_signal,
                &[],
                [PASS, PASS, fail(libc::ENOSYS)],
            ),
            (libc::SYS_prlimit64, &[0], [PASS; 3]),
            (libc::SYS_prlimit64, &[7], [PASS, ASK, ASK]),
            (libc::SYS_sched_setaffinity, &[7], [PASS, ASK, ASK]),
            (libc::SYS_setpriority, &[0, 0], [PASS, ASK, ASK]),
            (libc::SYS_mq_open, &[], [PASS, fail(libc::EACCES), PASS]),
            (libc::SYS_socket, &[unix, 1], [PASS; 3]),
            (libc::SYS_socket, &[unix, 0x80005], [PASS; 3]),
            (
                libc::SYS_socket,
                &[unix, 2],
                [PASS, fail(libc::EACCES), fail(libc::EACCES)],
            ),
            (
                libc::SYS_socketpair,
                &[unix, 0x803],
                [PASS, fail(libc::EACCES), fail(libc::EACCES)],
            ),
            (libc::SYS_socket, &[2, 2], [PASS; 3]),
            (libc::SYS_socket, &[10, 1], [PASS; 3]),
            (libc::SYS_socket, &[16, 3, 0], [PASS; 3]),
            (
                libc::SYS_socket,
                &[16, 3, 15],
                [
                    PASS,
                    fail(libc::EPROTONOSUPPORT),
                    fail(libc::EPROTONOSUPPORT),
                ],
            ),
            (
                libc::SYS_socket,
                &[40, 1],
                [PASS, fail(libc::EAFNOSUPPORT), fail(libc::EAFNOSUPPORT)],
            ),
            (libc::SYS_ioctl, &[1, 0x5413], [PASS; 3]),
            (libc::SYS_ioctl, &[1, 0x5412], [PASS, no, no]),
            // The kernel takes the lower half.
            (libc::SYS_ioctl, &[1, 0x1_0000_5412], [PASS, no, no]),
            (libc::SYS_ioctl, &[1, 0x4004_9409], [PASS; 3]),
            (libc::SYS_ioctl, &[1, 0x4008_6602], [PASS, no, no]),
            (libc::SYS_ioctl, &[1, 0x8901], [PASS, PASS, no]),
            (libc::SYS_fcntl, &[1, 8], [PASS, PASS, no]),
            (libc::SYS_fcntl, &[1, 4], [PASS; 3]),
            (libc::SYS_fcntl, &[1, 1024], [PASS, no, no]),
            (libc::SYS_fcntl, &[1, 1026], [PASS, no, no]),
            (libc::SYS_connect, &[], [ASK; 3]),
        ];
        for (call, args, expected) in table {
            let found = [None, Some(NEW), Some(OLD)].map(|held| answer(held, *call, args));
            assert_eq!(found, *expected, "{call} {args:x?}");
        }
    }

    #[test]
    fn a_filter_is_no_longer_than_the_kernel_takes() {
        let len = program(Some(OLD)).expect("a known architecture").len();
        assert!(len <= 4096, "{len}");
    }
}
