//! What `sandbox "strict"` closes and what it leaves open: the tables of
//! `docs/concepts/sandbox.md`, each row tried by a command that would use it. As root and as
//! another user, on this kernel and on older ones.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};

use crate::space::{REL, Space};

/// What must come of an attempt.
#[derive(Clone, Copy)]
enum Comes {
    /// Always this.
    All(&'static str),
    /// This where Landlock has version 6, and this where not.
    Scoped(&'static str, &'static str),
    /// This for root, and this for others.
    Root(&'static str, &'static str),
}
use Comes::{All, Root, Scoped};

const NO: Comes = All("EPERM");
const DENIED: Comes = All("EACCES");
const DONE: Comes = All("done");

/// Name of the row in `docs/concepts/sandbox.md`, what a Python program does, and what comes of
/// it. What is tried on the machine changes nothing there, should it come to pass.
#[cfg(target_arch = "x86_64")]
const CLOSED: &[(&str, &str, Comes)] = &[
    // Processes.
    ("signals", "os.kill(VICTIM, 0)", NO),
    ("signals", "os.kill(-VICTIM, 0)", NO),
    ("signals", "os.kill(rel(), 0)", NO),
    ("signals", "call(200, VICTIM, 0)", NO),
    ("signals", "call(234, VICTIM, VICTIM, 0)", NO),
    ("signals", "call(129, VICTIM, 10, siginfo())", NO),
    (
        "signals",
        "call(424, call(434, VICTIM, 0), 9, 0, 0)",
        Scoped("EPERM", "ENOSYS"),
    ),
    (
        "signals",
        "owner_of_signals(VICTIM)",
        Scoped("no signal", "EPERM"),
    ),
    (
        "limits and priorities",
        "resource.prlimit(VICTIM, 7, (9, 9))",
        NO,
    ),
    ("limits and priorities", "resource.prlimit(VICTIM, 7)", NO),
    ("limits and priorities", "os.setpriority(0, VICTIM, 5)", NO),
    ("limits and priorities", "os.setpriority(1, VICTIM, 5)", NO),
    (
        "limits and priorities",
        "os.setpriority(2, os.getuid(), os.getpriority(2, os.getuid()))",
        NO,
    ),
    (
        "limits and priorities",
        "os.sched_setaffinity(VICTIM, {0})",
        NO,
    ),
    (
        "limits and priorities",
        "os.sched_setscheduler(VICTIM, 3, os.sched_param(0))",
        NO,
    ),
    ("limits and priorities", "call(251, 1, VICTIM, 3 << 13)", NO),
    ("memory of processes", "call(101, 16, VICTIM, 0, 0)", NO),
    (
        "memory of processes",
        "call(310, VICTIM, iovec(), 1, iovec(), 1, 0)",
        NO,
    ),
    (
        "memory of processes",
        "call(438, call(434, VICTIM, 0), 0, 0)",
        NO,
    ),
    (
        "memory of processes",
        "open(f'/proc/{VICTIM}/mem')",
        All("ENOENT"),
    ),
    (
        "memory of processes",
        "os.listdir(f'/proc/{VICTIM}/fd')",
        All("ENOENT"),
    ),
    ("groups and sessions", "os.setpgid(0, VICTIM)", NO),
    (
        "groups and sessions",
        "os.getsid(0) == OUTER_SESSION",
        All("False"),
    ),
    ("undeclared files", "open(FILE)", All("ENOENT")),
    ("undeclared files", "open(FILE, 'a')", DENIED),
    ("undeclared files", "os.truncate(FILE, 0)", DENIED),
    // Sockets.
    (
        "abstract sockets",
        "connected(1, ABSTRACT)",
        Scoped("EPERM", "ECONNREFUSED"),
    ),
    ("sockets with a path", "connected(1, OUTER)", All("ENOENT")),
    ("sockets with a path", "connected(5, OUTER)", All("ENOENT")),
    (
        "sockets with a path",
        "connected(1, linked(OUTER))",
        All("ENOENT"),
    ),
    (
        "sockets with a path",
        "connected(1, '/proc/self/root' + OUTER)",
        All("ENOENT"),
    ),
    (
        "sockets with a path",
        "connected(1, f'/proc/{os.getppid()}/root' + OUTER)",
        All("ENOENT"),
    ),
    ("sockets with a path", "os.stat(OUTER)", All("ENOENT")),
    (
        "sockets with a path",
        "socket.socket(1).bind(OUTER + '2')",
        DENIED,
    ),
    (
        "rights that were given up",
        "as_nobody(lambda: os.chmod('mine', 0o4755))",
        NO,
    ),
    (
        "rights that were given up",
        "as_nobody(lambda: os.chown('mine', 65534, 65534))",
        NO,
    ),
    (
        "rights that were given up",
        "as_nobody(lambda: os.chown('theirs', 0, 0))",
        NO,
    ),
    (
        "rights that were given up",
        "as_nobody(lambda: os.utime('mine', (1, 1)))",
        NO,
    ),
    (
        "rights that were given up",
        "as_nobody(lambda: os.setxattr('mine', 'user.a', b'1'))",
        Root("EACCES", "EPERM"),
    ),
    (
        "rights that were given up",
        "os.setxattr(owned('mine'), 'trusted.a', b'1')",
        NO,
    ),
    (
        "rights that were given up",
        "at_socket(0o700)",
        Root("EACCES", "EPERM"),
    ),
    (
        "rights that were given up",
        "at_socket(0o777)",
        Root("65534", "EPERM"),
    ),
    ("datagrams of this machine", "socket.socket(1, 2)", DENIED),
    ("datagrams of this machine", "socket.socket(1, 3)", DENIED),
    (
        "datagrams of this machine",
        "socket.socketpair(1, 2)",
        DENIED,
    ),
    ("raw sockets", "socket.socket(2, 3, 1)", NO),
    (
        "other kinds of sockets",
        "socket.socket(17, 3)",
        All("EAFNOSUPPORT"),
    ),
    (
        "other kinds of sockets",
        "socket.socket(38, 5)",
        All("EAFNOSUPPORT"),
    ),
    (
        "other kinds of sockets",
        "socket.socket(40, 1)",
        All("EAFNOSUPPORT"),
    ),
    (
        "other kinds of sockets",
        "socket.socket(16, 3, 15)",
        All("EPROTONOSUPPORT"),
    ),
    (
        "other kinds of sockets",
        "socket.socket(16, 3, 2)",
        All("EPROTONOSUPPORT"),
    ),
    (
        "other kinds of sockets",
        "in_group(socket.socket(16, 3, 0))",
        All("EAFNOSUPPORT"),
    ),
    // Terminals.
    ("terminals", "open('/dev/tty')", All("ENXIO")),
    ("terminals", "open('/dev/tty', 'w')", All("ENXIO")),
    ("terminals", "open('/dev/ptmx', 'r')", All("ENOENT")),
    ("terminals", "open(TERMINAL)", All("ENOENT")),
    ("terminals", "os.open(TERMINAL, os.O_RDWR)", DENIED),
    ("terminals", "os.open(TERMINAL, 3)", DENIED),
    (
        "terminals",
        "open('/proc/self/stat').read().rsplit(')')[1].split()[4]",
        All("0"),
    ),
    ("terminals", "fcntl.ioctl(0, 0x5412, b'x')", NO),
    ("terminals", "fcntl.ioctl(0, 0x541c, b'\\x03')", NO),
    ("terminals", "call(16, 0, 0x1_0000_5412, 'x')", NO),
    // Files.
    (
        "modes, owners, times, attributes",
        "os.chmod(FILE, 0o777)",
        DENIED,
    ),
    (
        "modes, owners, times, attributes",
        "os.chmod(TOOL, 0o777)",
        DENIED,
    ),
    (
        "modes, owners, times, attributes",
        "os.fchmod(os.open(TOOL, 0), 0o777)",
        DENIED,
    ),
    (
        "modes, owners, times, attributes",
        "os.chown(TOOL, os.getuid(), os.getgid())",
        DENIED,
    ),
    (
        "modes, owners, times, attributes",
        "os.fchown(os.open(TOOL, 0), -1, -1)",
        DENIED,
    ),
    (
        "modes, owners, times, attributes",
        "os.utime(TOOL, (1, 1))",
        DENIED,
    ),
    (
        "modes, owners, times, attributes",
        "os.utime(os.open(TOOL, 0), (1, 1))",
        DENIED,
    ),
    (
        "modes, owners, times, attributes",
        "os.utime(linked(TOOL), (1, 1))",
        DENIED,
    ),
    (
        "modes, owners, times, attributes",
        "call(132, TOOL, 0)",
        DENIED,
    ),
    (
        "modes, owners, times, attributes",
        "call(235, TOOL, 0)",
        DENIED,
    ),
    (
        "modes, owners, times, attributes",
        "call(452, -100, TOOL, 0o777, 0)",
        DENIED,
    ),
    (
        "modes, owners, times, attributes",
        "os.setxattr(TOOL, 'user.a', b'1')",
        DENIED,
    ),
    (
        "modes, owners, times, attributes",
        "os.setxattr(os.open(TOOL, 0), 'user.a', b'1')",
        DENIED,
    ),
    (
        "modes, owners, times, attributes",
        "os.removexattr(TOOL, 'user.a')",
        DENIED,
    ),
    (
        "modes, owners, times, attributes",
        "call(463, -100, TOOL, 0, 'user.a', 0, 0)",
        All("ENOSYS"),
    ),
    (
        "modes, owners, times, attributes",
        "call(469, -100, TOOL, 0, 0, 0)",
        All("ENOSYS"),
    ),
    (
        "modes, owners, times, attributes",
        "os.chmod('/dev/null', 0o666)",
        DENIED,
    ),
    (
        "modes, owners, times, attributes",
        "fcntl.ioctl(os.open(TOOL, 0), 0x40086602, b'\\0' * 8)",
        NO,
    ),
    (
        "modes, owners, times, attributes",
        "fcntl.ioctl(os.open(TOOL, 0), 0x401c5820, b'\\0' * 28)",
        NO,
    ),
    (
        "modes, owners, times, attributes",
        "in_a_race(TOOL)",
        All("0o644"),
    ),
    (
        "devices",
        "os.mknod('d', 0o020666, os.makedev(1, 3))",
        DENIED,
    ),
    (
        "devices",
        "os.mknod('d', 0o060666, os.makedev(8, 0))",
        DENIED,
    ),
    ("devices", "open('/dev/mem')", All("ENOENT")),
    ("devices", "os.open('/dev/kmsg', 3)", DENIED),
    ("handles and notifications", "call(304, -100, 0, 0)", NO),
    ("handles and notifications", "call(300, 0, 0)", NO),
    (
        "handles and notifications",
        "fcntl.fcntl(os.open(TOOL, 0), 1024, fcntl.F_WRLCK)",
        NO,
    ),
    (
        "handles and notifications",
        "fcntl.fcntl(os.open('/etc', 0), 1026, 1)",
        NO,
    ),
    // The machine.
    ("mounts and roots", "call(165, 0, '/', 0, 0, 0)", NO),
    ("mounts and roots", "call(166, '/nowhere', 0)", NO),
    ("mounts and roots", "call(428, -100, '/', 1)", NO),
    ("mounts and roots", "call(429, -1, 0, -1, 0, 0)", NO),
    ("mounts and roots", "call(430, 'tmpfs', 0)", NO),
    ("mounts and roots", "call(155, '.', '.')", NO),
    ("mounts and roots", "call(161, '.')", NO),
    ("mounts and roots", "call(308, 0, 0)", NO),
    (
        "mounts and roots",
        "in_namespace(lambda: call(165, 'none', '.', 'tmpfs', 0, 0))",
        NO,
    ),
    ("keys", "call(248, 'user', 'a', 'b', 1, -3)", NO),
    ("keys", "call(249, 'user', 'a', 0, 0)", NO),
    ("keys", "call(250, 0, -3, 0)", NO),
    (
        "names, clocks and the kernel",
        "socket.sethostname(socket.gethostname())",
        NO,
    ),
    (
        "names, clocks and the kernel",
        "call(171, domain := open('/proc/sys/kernel/domainname').read().strip(), len(domain))",
        NO,
    ),
    (
        "names, clocks and the kernel",
        "in_namespace(lambda: socket.sethostname('x'))",
        NO,
    ),
    ("names, clocks and the kernel", "call(164, 0, 0)", NO),
    ("names, clocks and the kernel", "call(227, 0, 0)", NO),
    ("names, clocks and the kernel", "call(305, 0, 0)", NO),
    ("names, clocks and the kernel", "call(159, 0)", NO),
    ("names, clocks and the kernel", "call(169, 0, 0, 0, 0)", NO),
    ("names, clocks and the kernel", "call(246, 0, 0, 0, 0)", NO),
    (
        "names, clocks and the kernel",
        "call(320, 0, 0, 0, 0, 0)",
        NO,
    ),
    ("names, clocks and the kernel", "call(175, 0, 0, 0)", NO),
    ("names, clocks and the kernel", "call(313, 0, 0, 0)", NO),
    ("names, clocks and the kernel", "call(176, 'none', 0)", NO),
    (
        "names, clocks and the kernel",
        "call(167, '/nowhere', 0)",
        NO,
    ),
    ("names, clocks and the kernel", "call(168, '/nowhere')", NO),
    ("names, clocks and the kernel", "call(179, 0, 0, 0, 0)", NO),
    ("names, clocks and the kernel", "call(443, 0, 0, 0, 0)", NO),
    ("names, clocks and the kernel", "call(163, 0)", NO),
    ("names, clocks and the kernel", "call(103, 3, 0, 0)", NO),
    ("names, clocks and the kernel", "call(153)", NO),
    ("names, clocks and the kernel", "call(321, 0, 0, 0)", NO),
    (
        "names, clocks and the kernel",
        "call(298, 0, 0, 0, 0, 0)",
        NO,
    ),
    ("names, clocks and the kernel", "call(323, 0)", NO),
    ("names, clocks and the kernel", "call(172, 3)", NO),
    ("privileges", "privileges()", All("0x0")),
    (
        "named queues",
        "call(240, QUEUE, 0, 0, 0)",
        Root("ENOENT", "EACCES"),
    ),
];

/// What is left open, in the same way.
const OPEN: &[(&str, &str, Comes)] = &[
    ("its own processes", "own_child()", DONE),
    ("its own processes", "os.killpg(0, 0)", DONE),
    (
        "its own processes",
        "os.setpriority(0, os.getpid(), 1)",
        DONE,
    ),
    (
        "its own processes",
        "os.sched_setaffinity(os.getpid(), os.sched_getaffinity(0))",
        DONE,
    ),
    ("its own sockets", "own_socket(1, './s')", DONE),
    (
        "its own sockets",
        "own_socket(5, os.environ['TMPDIR'] + '/s')",
        DONE,
    ),
    (
        "its own sockets",
        "own_socket(1, '\\0rel-own')",
        Scoped("done", "ECONNREFUSED"),
    ),
    ("its own sockets", "socket.socketpair()", DONE),
    ("its own files", "own_file()", DONE),
    (
        "its own files",
        "as_nobody(lambda: (os.chmod('theirs', 0o600), os.utime('theirs', (1, 1))))",
        Root("done", "EPERM"),
    ),
    ("the network", "connected(2, ('127.0.0.1', PORT))", DONE),
    ("the network", "not_blocking(('127.0.0.1', PORT))", DONE),
    (
        "the network",
        "socket.socket(2, 2).connect(('127.0.0.1', 9))",
        DONE,
    ),
    ("the network", "socket.socket(16, 3, 0).bind((0, 0))", DONE),
    ("the network", "unconnected(socket.socket(2, 2))", DONE),
    (
        "namespaces of its own",
        "in_namespace(lambda: None)",
        Root("done", "done"),
    ),
    (
        "locks",
        "fcntl.flock(os.open(TOOL, 0), fcntl.LOCK_EX | fcntl.LOCK_NB)",
        DONE,
    ),
    (
        "numbers of processes",
        "os.getpgid(VICTIM) == VICTIM",
        All("True"),
    ),
    (
        "numbers of processes",
        "str(os.getpriority(0, VICTIM))",
        All("0"),
    ),
    (
        "memory, time and disk",
        "bytearray(50_000_000) and None",
        DONE,
    ),
    (
        "System V",
        "call(29, KEY, 4096, 0o600)",
        Root("ENOENT", "done"),
    ),
];

/// What both kinds of attempts use.
const PRELUDE: &str = r#"
import ctypes, errno, fcntl, os, resource, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(os.environ["TMPDIR"])

def call(number, *arguments):
    encoded = [a.encode() if isinstance(a, str) else a for a in arguments]
    encoded = [ctypes.c_long(a) if isinstance(a, int) else a for a in encoded]
    result = libc.syscall(ctypes.c_long(number), *encoded)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result

def rel():
    return int(open(f"/proc/{os.getsid(0)}/stat").read().rsplit(")")[1].split()[1])

def siginfo():
    return struct.pack("iii", 10, 0, -1) + bytes(116)

def iovec():
    return struct.pack("PN", 0x1000, 8)

def connected(kind, name):
    family = socket.AF_INET if kind == 2 else socket.AF_UNIX
    socket.socket(family, 1 if kind == 2 else kind).connect(name)

def unconnected(s):
    call(42, s.fileno(), bytes(16), 16)

def in_group(s):
    call(42, s.fileno(), struct.pack("HHII", 16, 0, 0, 1), 12)

def not_blocking(name):
    s = socket.socket()
    s.setblocking(False)
    assert s.connect_ex(name) in [0, errno.EINPROGRESS]
    s.setblocking(True)
    s.settimeout(9)
    s.getpeername()

def linked(path):
    if os.path.islink("link"):
        os.remove("link")
    os.symlink(path, "link")
    return "link"

def own_socket(kind, name):
    server, client = socket.socket(1, kind), socket.socket(1, kind)
    server.bind(name)
    server.listen()
    client.connect(name)
    server.accept()[0].send(b"x")
    assert client.recv(1) == b"x"
    if name[0] != "\0":
        os.remove(name)

def own_child():
    pid = os.fork()
    if pid == 0:
        time.sleep(1000)
    os.setpriority(0, pid, 2)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (50, 50))
    call(200, pid, 0)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.raise_signal(signal.SIGUSR1)
    threading.Thread(target=lambda: os.sched_setaffinity(threading.get_native_id(), {0})).start()

def own_file():
    open("own", "w").close()
    os.chmod("own", 0o4751)
    os.utime("own", (5, 7))
    assert os.stat("own").st_mode & 0o7777 == 0o4751 and os.stat("own").st_mtime == 7
    os.utime("own", ns=(5, 1234567891))
    assert os.stat("own").st_mtime_ns == 1234567891
    f = os.open("own", os.O_RDWR)
    os.fchmod(f, 0o600)
    os.utime(f, (8, 9))
    assert os.fstat(f).st_mode & 0o7777 == 0o600 and os.fstat(f).st_mtime == 9
    os.utime("own")
    assert abs(os.stat("own").st_mtime - time.time()) < 100
    os.chown("own", -1, -1)
    os.chown(f, os.getuid(), os.getgid())
    os.symlink("own", "other")
    os.utime("other", (1, 2), follow_symlinks=False)
    assert os.lstat("other").st_mtime == 2 and os.stat("own").st_mtime != 2
    os.chown("other", os.getuid(), os.getgid(), follow_symlinks=False)
    dir = os.open(".", 0)
    os.chmod("own", 0o640, dir_fd=dir)
    assert os.stat("own").st_mode & 0o7777 == 0o640
    try:
        os.setxattr("own", "user.a", b"b")
        assert os.getxattr("own", "user.a") == b"b"
        os.removexattr(f, "user.a")
        assert os.listxattr("own") == []
    except OSError as e:
        assert e.errno == errno.EOPNOTSUPP, e
    os.fchmod(sys.stdout.fileno(), 0o600)
    for wrong, number in [
        (lambda: os.chmod("nothing", 0), errno.ENOENT),
        (lambda: os.chmod("own/x", 0), errno.ENOTDIR),
        (lambda: os.fchmod(99, 0), errno.EBADF),
        (lambda: call(90, 1, 0), errno.EFAULT),
    ]:
        try:
            wrong()
            raise AssertionError(number)
        except OSError as e:
            assert e.errno == number, (e, number)
    os.remove("own")
    os.remove("other")

def in_child(act):
    child = os.fork()
    if child == 0:
        code = 0
        try:
            act()
        except OSError as e:
            code = e.errno
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, "")

def in_namespace(act):
    in_child(lambda: (call(272, 0x10000000 | 0x20000 | 0x04000000), act()))

def owned(name, user=None):
    open(name, "w").close()
    if user and os.getuid() == 0:
        os.chown(name, user, user)
    return name

def as_nobody(act):
    owned("mine"), owned("theirs", 65534)
    def other():
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        act()
    try:
        in_child(other)
    finally:
        os.remove("mine")
        os.remove("theirs")

# Who may connect to a socket, and whom its owner sees.
def at_socket(mode):
    server = socket.socket(1)
    server.bind("./r")
    os.chmod("./r", mode)
    server.listen()
    try:
        as_nobody(lambda: connected(1, "./r"))
    finally:
        os.remove("./r")
    peer = server.accept()[0].getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return str(struct.unpack("iii", peer)[1])

def owner_of_signals(pid):
    a, b = socket.socketpair()
    fcntl.fcntl(a, fcntl.F_SETOWN, pid)
    fcntl.fcntl(a, 10, signal.SIGKILL)
    fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    b.send(b"x")
    time.sleep(0.1)
    return "no signal"

def privileges():
    status = open("/proc/self/status").read()
    has = [int(l.split()[1], 16) for l in status.splitlines() if l.startswith(("CapPrm", "CapEff"))]
    kept = sum(1 << n for n in [0, 1, 3, 4, 5, 6, 7, 8, 10, 29, 31])
    return hex((has[0] | has[1]) & ~kept)

# The path that is looked at is not the one that the kernel reads.
def in_a_race(path):
    open("own", "w").close()
    mine, other = os.path.abspath("own").encode() + b"\0", path.encode() + b"\0"
    shared = ctypes.create_string_buffer(4096)
    shared[:len(mine)] = mine
    is_over = False
    def flip():
        while not is_over:
            ctypes.memmove(shared, other, len(other))
            ctypes.memmove(shared, mine, len(mine))
    flipping = threading.Thread(target=flip)
    flipping.start()
    end = time.time() + 1
    while time.time() < end:
        libc.syscall(90, shared, 0o644 if os.stat("own").st_mode & 0o777 == 0o600 else 0o600)
    is_over = True
    flipping.join()
    os.remove("own")
    return oct(os.stat(path).st_mode & 0o777)

def said(act):
    try:
        result = act()
    except OSError as e:
        return errno.errorcode[e.errno]
    return str(result) if isinstance(result, (bool, str)) else "done"
"#;

/// Processes, sockets and files outside of a sandbox that commands try to reach.
struct Outside {
    victim: Child,
    sockets: Vec<UnixListener>,
    server: std::net::TcpListener,
    name: String,
    user: Option<u32>,
}

/// A user whom nothing belongs to.
const OTHER: u32 = 21_701;

impl Outside {
    /// Sets all up in a space; that of another user than the one who tests, if one is given.
    fn new(space: &Space, user: Option<u32>) -> Self {
        space
            .write("../sdk/tool", "tool\n")
            .write("../home/file", "file\n");
        let path = space.base().join("home/outer.sock");
        let name = format!("rel-it-{}", space.base().display());
        let abstract_one = SocketAddr::from_abstract_name(&name).expect("an address");
        let sockets = vec![
            UnixListener::bind(&path).expect("binds"),
            UnixListener::bind_addr(&abstract_one).expect("binds"),
        ];
        for socket in &sockets {
            socket.set_nonblocking(true).expect("sets");
        }
        for path in [
            space.base().join("sdk/tool"),
            space.base().join("home/file"),
        ] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("sets");
        }
        if let Some(user) = user {
            space.shell(&format!("chmod 755 ..; chown -R {user}:{user} .."));
        }
        // It leads a group, of which alone it is.
        let mut sleep = as_user(space, "setsid", user);
        let victim = sleep.args(["sleep", "1000"]).spawn().expect("starts");
        Self {
            victim,
            sockets,
            server: std::net::TcpListener::bind("127.0.0.1:0").expect("binds"),
            name,
            user,
        }
    }

    /// Returns the program that tries all.
    fn program(&self, space: &Space, attempts: &[&(&str, &str, Comes)]) -> String {
        let base = space.base().display();
        let session = session();
        let (victim, name, key) = (self.victim.id(), &self.name, key());
        let port = self.server.local_addr().expect("has one").port();
        let mut text = format!(
            r#"{PRELUDE}
VICTIM, PORT, OUTER_SESSION, KEY = {victim}, {port}, {session}, {key}
ABSTRACT, QUEUE, TERMINAL = "\0{name}", "rel-it-{key}", "/dev/pts/0"
OUTER, FILE, TOOL = "{base}/home/outer.sock", "{base}/home/file", "{base}/sdk/tool"
"#
        );
        for (_, attempt, _) in attempts {
            text.push_str(&format!("print(said(lambda: {attempt}))\n"));
        }
        text
    }

    /// Asserts that nobody has done anything to them.
    fn are_untouched(&mut self, space: &Space) {
        assert!(
            self.victim.try_wait().expect("asks").is_none(),
            "it was killed"
        );
        let pid = self.victim.id();
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("reads");
        let files = limits.lines().find(|l| l.starts_with("Max open files"));
        assert!(!files.expect("a limit").contains(" 9 "), "{limits}");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("reads");
        let nice = stat
            .rsplit(')')
            .next()
            .and_then(|s| s.split_whitespace().nth(16));
        assert_eq!(nice, Some("0"));
        for socket in &self.sockets {
            assert!(socket.accept().is_err(), "it was connected to");
        }
        for path in ["sdk/tool", "home/file"] {
            let meta = fs::metadata(space.base().join(path)).expect("is there");
            assert_eq!(meta.mode() & 0o7777, 0o644, "{path}");
            assert!(meta.mtime() > 1000, "{path}");
        }
        let null = fs::metadata("/dev/null").expect("is there");
        assert_eq!(null.mode() & 0o777, 0o666);
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

/// Returns the identifier of this session: 0 where its leader is outside of this PID namespace, as
/// in containers (`proc_pid_stat(5)`, field 6).
fn session() -> u32 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    let session = fields.split_whitespace().nth(3).expect("has field 6");
    session.parse().expect("is a number")
}

/// A key of System V shared memory, and the name of a queue, that nobody else uses.
fn key() -> u32 {
    0x7e57_0000 | (std::process::id() & 0xffff)
}

/// Makes shared memory and a queue, or removes them.
const SHARED: &str = r#"
import ctypes, sys
libc = ctypes.CDLL(None)
key, queue = int(sys.argv[2]), b"rel-it-" + sys.argv[2].encode()
if sys.argv[1] == "make":
    assert libc.shmget(key, 4096, 0o1600) >= 0
    assert libc.syscall(240, queue, 0o102, 0o600, None) >= 0
else:
    libc.shmctl(libc.shmget(key, 0, 0), 0, None)
    libc.syscall(241, queue)
"#;

/// Makes or removes what processes of a user share by names that are no paths.
fn shared(space: &Space, what: &str, user: Option<u32>) {
    let mut python = as_user(space, "/usr/bin/python3", user);
    python.args(["-S", "-c", SHARED, what, &key().to_string()]);
    let _ = space.finish(&mut python).ok();
}

/// Returns a program that a user runs in the checkout.
fn as_user(space: &Space, program: &str, user: Option<u32>) -> Command {
    let Some(user) = user else {
        return space.program(program);
    };
    let mut command = space.program("setpriv");
    command
        .args([format!("--reuid={user}"), format!("--regid={user}")])
        .args(["--clear-groups", program]);
    command
}

/// Makes the kernel tell another version of Landlock than it has.
const OLDER: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
long syscall(long number, ...) {
    static long (*next)(long, ...);
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(arguments, long);
    va_end(arguments);
    if (!next) next = dlsym(RTLD_NEXT, "syscall");
    if (number == 444 && a[2] == 1) return atoi(getenv("OLDER"));
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
"#;

/// Where and as whom the attempts are made.
#[derive(Clone, Copy, Debug)]
struct Case {
    user: Option<u32>,
    /// The version of Landlock, where it is another than the kernel's.
    version: Option<i32>,
}

/// Makes all attempts in a sandbox and returns those that came out otherwise.
fn tried(case: Case, attempts: &[&(&str, &str, Comes)]) -> Vec<String> {
    let space = Space::below(Path::new("/tmp"));
    let base = space.base().display().to_string();
    space.write(
        "Releasefile.kdl",
        format!(
            "target \"t\" {{ sandbox \"strict\" {{ read \"{base}/sdk\" }}; inputs \"a.py\"; \
             run \"/usr/bin/python3 -S a.py\"; }}\n"
        ),
    );
    let mut outside = Outside::new(&space, case.user);
    space.write("a.py", outside.program(&space, attempts));
    let mut rel = as_user(&space, REL, outside.user);
    rel.args(["build", "-q"]);
    if let Some(version) = case.version {
        let library = space.base().join("older.so");
        space.write("../older.c", OLDER);
        space.shell("cc -shared -fPIC ../older.c -o ../older.so -ldl");
        rel.env("LD_PRELOAD", library)
            .env("OLDER", version.to_string());
    }
    shared(&space, "make", case.user);
    let output = space.finish(&mut rel);
    shared(&space, "remove", case.user);
    let mut log = as_user(&space, REL, outside.user);
    let printed = space.finish(log.args(["log", "t"])).stdout;
    assert_eq!(output.code, 0, "{output}\n{printed}");
    let found: Vec<&str> = printed.lines().collect();
    assert_eq!(found.len(), attempts.len(), "{output}\n{printed}");
    let is_root = case.user.is_none() && rustix::process::getuid().is_root();
    let is_scoped = case.version.is_none_or(|version| version >= 6);
    let wrong = attempts
        .iter()
        .zip(found)
        .filter_map(|((row, attempt, result), found)| {
            let expected = match result {
                All(expected) => expected,
                Scoped(new, old) => {
                    if is_scoped {
                        new
                    } else {
                        old
                    }
                }
                Root(root, other) => {
                    if is_root {
                        root
                    } else {
                        other
                    }
                }
            };
            (found != *expected)
                .then(|| format!("{case:?}: {row}: {attempt}: {found}, not {expected}"))
        });
    let wrong: Vec<String> = wrong.collect();
    if wrong.is_empty() {
        outside.are_untouched(&space);
    }
    wrong
}

#[test]
#[cfg(target_arch = "x86_64")]
fn what_is_closed_is_closed_for_everybody_on_every_kernel() {
    let users = match rustix::process::getuid().is_root() {
        true => vec![None, Some(OTHER)],
        false => vec![None],
    };
    let mut wrong = Vec::new();
    for user in users {
        for version in [None, Some(3), Some(4), Some(5)] {
            let attempts: Vec<_> = CLOSED.iter().chain(OPEN).collect();
            wrong.extend(tried(Case { user, version }, &attempts));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the first words of the rows of a table under a heading.
fn rows(page: &str, heading: &str) -> BTreeSet<String> {
    let (_, below) = page
        .split_once(&format!("\n## {heading}\n"))
        .expect("a heading");
    let section = below.split("\n## ").next().expect("a section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    let firsts = rows.map(|row| row.split(" | ").next().expect("a column").to_owned());
    firsts.filter(|first| first != "what").collect()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn every_row_of_the_page_is_tried() {
    let page = include_str!("../../docs/concepts/sandbox.md");
    for (heading, table) in [("Closed", CLOSED), ("Open", OPEN)] {
        let tried: BTreeSet<String> = table.iter().map(|(row, ..)| (*row).to_owned()).collect();
        assert_eq!(rows(page, heading), tried, "{heading}");
    }
}

/// A strict target that connects to a socket outside, with what its sandbox names.
fn connecting(named: &str) -> (Space, UnixListener) {
    let space = Space::empty();
    let path = space.base().join("home/outer.sock");
    let text = format!(
        r#"
target "t" {{
    sandbox "strict" {{ {named} }}
    inputs "c.py"
    outputs "o"
    run "/usr/bin/python3 -S c.py [outer] > {{out}}"
}}
"#
    );
    let outer = path.display().to_string();
    space.write("Releasefile.kdl", text.replace("[outer]", &outer));
    space.write(
        "c.py",
        "import socket, sys\ns = socket.socket(1)\ns.connect(sys.argv[1])\nprint(s.recv(9))\n",
    );
    (space, UnixListener::bind(path).expect("binds"))
}

#[test]
fn a_socket_that_is_named_is_open() {
    for named in [
        "connect \"[outer]\"",
        "connect \"~/outer.sock\"",
        "connect \"~/\"",
        "read \"[outer]\"",
    ] {
        let (space, server) = connecting(named);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut client, _) = server.accept().expect("accepts");
                client.write_all(b"hello").expect("writes");
            });
            let output = space.run(["build"]);
            // Whatever happened, the server is not left waiting.
            drop(UnixStream::connect(space.base().join("home/outer.sock")));
            let _ = output.ok();
        });
        assert_eq!(space.read("o"), "b'hello'\n", "{named}");
    }
}

#[test]
fn a_socket_that_is_not_named_is_told() {
    let (space, _server) = connecting("");
    let told = space.run(["build"]).fails(1).stderr;
    assert!(
        told.contains("undeclared  connects to `[space]/home/outer.sock`"),
        "{told}"
    );
    let help = "help: add `sandbox \"strict\" { connect \"[space]/home/outer.sock\" }`";
    assert!(told.contains(help), "{told}");
}

#[test]
fn a_relative_socket_is_a_mistake() {
    let space = Space::new(r#"target "t" { sandbox "strict" { connect "a.sock" }; run "true"; }"#);
    let told = space.run(["check"]).fails(2).stderr;
    assert!(
        told.contains("`a.sock` is not a socket of this machine: it is relative"),
        "{told}"
    );
}

#[test]
fn terminals_that_are_named_are_open() {
    let space = Space::new(
        r#"
target "t" {
    sandbox "strict" { read "/dev/ptmx" "/dev/pts" }
    outputs "o"
    run "script -qec 'tty; stty -echo; echo typed' $TMPDIR/t; grep '^typed' $TMPDIR/t > {out}"
}
"#,
    );
    let _ = space.run(["build"]).ok();
    assert_eq!(space.read("o"), "typed\r\n");
}

/// Run at a terminal, a strict command neither writes to it nor types into it.
#[test]
fn nothing_reaches_the_terminal_of_a_person() {
    let space = Space::new(
        r#"
target "t" {
    sandbox "strict"
    outputs "o"
    run "(echo written > /dev/tty) 2>&1 || echo 'no terminal'"
    run "cut -d ' ' -f 7 /proc/self/stat > {out}"
}
"#,
    );
    let mut script = space.program("script");
    script.args(["-qec", &format!("{REL} build --color never"), "/dev/null"]);
    let output = space.finish(script.env("TERM", "dumb")).ok();
    assert!(output.stdout.contains("no terminal"), "{output}");
    assert!(!output.stdout.contains("\nwritten"), "{output}");
    assert_eq!(space.read("o"), "0\n", "the number of its terminal");
}
