// Runs a program and lets its n-th change to a file system fail, or kills it there.
//
//   faults N HOW REPORT PROGRAM ARGUMENTS
//
// HOW is `kill` (before the call), `torn` (a write is done by half, then killed), or an error
// with `once` or `on`: `ENOSPC-on` lets the n-th and all later ones fail. Only calls of PROGRAM
// itself count, on files, not of the processes that it starts. REPORT gets the number of
// calls, whether the n-th was met, and its name and path.
//
// Calls are caught in the kernel (seccomp hands them to this tracer), so none escapes: the
// Rust standard library goes through libc, rustix does not.
#define _GNU_SOURCE
#include <errno.h>
#include <elf.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

// On a descriptor, on a path, or opening a path for writing.
enum { ON_FD, ON_PATH, ON_PATH_AT, OPENS, OPENS_AT };

static const struct { long number; const char *name; int on; } CALLS[] = {
    {SYS_write, "write", ON_FD}, {SYS_pwrite64, "pwrite", ON_FD}, {SYS_writev, "writev", ON_FD},
    {SYS_fsync, "fsync", ON_FD}, {SYS_fdatasync, "fdatasync", ON_FD},
    {SYS_ftruncate, "ftruncate", ON_FD}, {SYS_fallocate, "fallocate", ON_FD},
    {SYS_fchmod, "fchmod", ON_FD}, {SYS_copy_file_range, "copy_file_range", ON_FD + 10},
    {SYS_sendfile, "sendfile", ON_FD}, {SYS_ioctl, "ioctl", ON_FD + 20},
    {SYS_renameat2, "renameat2", ON_PATH_AT}, {SYS_linkat, "linkat", ON_PATH_AT},
    {SYS_symlinkat, "symlinkat", ON_PATH}, {SYS_unlinkat, "unlinkat", ON_PATH_AT},
    {SYS_mkdirat, "mkdirat", ON_PATH_AT}, {SYS_fchmodat, "fchmodat", ON_PATH_AT},
    {SYS_openat, "openat", OPENS_AT}, {SYS_utimensat, "utimensat", ON_PATH_AT},
#ifdef SYS_renameat
    {SYS_renameat, "renameat", ON_PATH_AT},
#endif
#ifdef SYS_open
    {SYS_open, "open", OPENS}, {SYS_rename, "rename", ON_PATH}, {SYS_link, "link", ON_PATH},
    {SYS_symlink, "symlink", ON_PATH}, {SYS_unlink, "unlink", ON_PATH},
    {SYS_mkdir, "mkdir", ON_PATH}, {SYS_rmdir, "rmdir", ON_PATH}, {SYS_chmod, "chmod", ON_PATH},
#endif
};
enum { COUNT = sizeof CALLS / sizeof *CALLS };

static void die(const char *what) {
    perror(what);
    exit(99);
}

// Lets the kernel hand the calls of the table to the tracer, and run all others at once.
static void filter(void) {
    struct sock_filter code[COUNT + 3];
    int at = 0;
    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < COUNT; i++)
        code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[i].number, COUNT - i, 0);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    struct sock_fprog program = {at, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("no_new_privs");
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) die("seccomp");
}

#if defined __x86_64__
typedef struct user_regs_struct registers;
static uint64_t number(registers *r) { return r->orig_rax; }
static uint64_t argument(registers *r, int n) {
    uint64_t all[] = {r->rdi, r->rsi, r->rdx, r->r10};
    return all[n];
}
static void set_third(registers *r, uint64_t value) { r->rdx = value; }
static void refuse(pid_t pid, registers *r, int error) {
    (void)pid;
    r->orig_rax = -1;
    r->rax = -(long)error;
}
#elif defined __aarch64__
typedef struct user_regs_struct registers;
static uint64_t number(registers *r) { return r->regs[8]; }
static uint64_t argument(registers *r, int n) { return r->regs[n]; }
static void set_third(registers *r, uint64_t value) { r->regs[2] = value; }
static void refuse(pid_t pid, registers *r, int error) {
    int none = -1;
    struct iovec io = {&none, sizeof none};
    ptrace(PTRACE_SETREGSET, pid, NT_ARM_SYSTEM_CALL, &io);
    r->regs[0] = -(long)error;
}
#else
#error "say here how registers are read on this processor"
#endif

static void get(pid_t pid, registers *r) {
    struct iovec io = {r, sizeof *r};
    ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &io);
}

static void set(pid_t pid, registers *r) {
    struct iovec io = {r, sizeof *r};
    ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &io);
}

static pid_t group_of(pid_t pid) {
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *file = fopen(path, "r");
    int group = -1;
    while (file && fgets(text, sizeof text, file))
        if (sscanf(text, "Tgid: %d", &group) == 1) break;
    if (file) fclose(file);
    return group;
}

static void text_at(pid_t pid, uint64_t address, char *text, size_t room) {
    struct iovec local = {text, room - 1}, remote = {(void *)address, room - 1};
    ssize_t got = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    if (got < 0) {
        // It may end at the end of a page.
        local.iov_len = remote.iov_len = 4096 - address % 4096;
        got = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    }
    text[got < 0 ? 0 : got] = 0;
}

// Returns the index of a call that changes a file, and its path; -1 for any other.
static int is_change(pid_t pid, registers *r, char *path, size_t room) {
    int i = 0;
    while (i < COUNT && CALLS[i].number != (long)number(r)) i++;
    if (i == COUNT) return -1;
    int on = CALLS[i].on;
    if (on == OPENS || on == OPENS_AT) {
        int flags = argument(r, on == OPENS ? 1 : 2);
        text_at(pid, argument(r, on == OPENS ? 0 : 1), path, room);
        return flags & (O_CREAT | O_TRUNC) ? i : -1;
    }
    if (on == ON_PATH || on == ON_PATH_AT) {
        text_at(pid, argument(r, on == ON_PATH ? 0 : 1), path, room);
        return i;
    }
    // Cloning a file is the only `ioctl` that changes one: FICLONE.
    if (on == ON_FD + 20 && (uint32_t)argument(r, 1) != 0x40049409) return -1;
    int fd = argument(r, on == ON_FD + 10 ? 2 : 0);
    char link[64];
    snprintf(link, sizeof link, "/proc/%d/fd/%d", pid, fd);
    ssize_t got = readlink(link, path, room - 1);
    path[got < 0 ? 0 : got] = 0;
    // Not the screen, pipes, sockets and devices.
    int is_file = path[0] == '/' && strncmp(path, "/dev/null", 9) && strncmp(path, "/proc", 5);
    return fd > 2 && is_file ? i : -1;
}

int main(int argc, char **argv) {
    if (argc < 5) return 99;
    long wanted = atol(argv[1]), count = 0;
    const char *how = argv[2];
    int error = !strncmp(how, "ENOSPC", 6) ? ENOSPC : !strncmp(how, "EROFS", 5) ? EROFS : EIO;
    int goes_on = !strcmp(how + strcspn(how, "-"), "-on"), kills = !strcmp(how, "kill"), tears = !strcmp(how, "torn");
    int gate[2];
    if (pipe(gate)) die("pipe");
    pid_t program = fork();
    if (program == 0) {
        char go;
        close(gate[1]);
        if (read(gate[0], &go, 1) != 1) _exit(99);
        close(gate[0]);
        filter();
        execv(argv[4], argv + 4);
        die(argv[4]);
    }
    close(gate[0]);
    long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK
        | PTRACE_O_TRACEVFORK | PTRACE_O_TRACESYSGOOD;
    if (ptrace(PTRACE_SEIZE, program, 0, options)) die("seize");
    if (write(gate[1], "", 1) != 1) die("pipe");
    close(gate[1]);
    FILE *report = fopen(argv[3], "w");
    if (!report) die(argv[3]);
    int status, code = 99;
    pid_t pid;
    // To the end of the last process: an orphan without its tracer could write nothing.
    while ((pid = waitpid(-1, &status, __WALL)) > 0) {
        if (!WIFSTOPPED(status)) {
            if (pid == program) code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
            continue;
        }
        int event = status >> 16, signal = WSTOPSIG(status);
        if (!event && signal == (SIGTRAP | 0x80)) {
            // The torn write has been done.
            kill(program, SIGKILL);
            continue;
        }
        if (event == PTRACE_EVENT_SECCOMP && group_of(pid) == program) {
            registers r;
            char path[4096] = "";
            get(pid, &r);
            int call = is_change(pid, &r, path, sizeof path);
            int is_write = call >= 0 && !strcmp(CALLS[call].name, "write") && argument(&r, 2) > 1;
            if (call >= 0) count++;
            if (call >= 0 && count == wanted) fprintf(report, "%s %s\n", CALLS[call].name, path);
            if (call >= 0 && (count == wanted || (goes_on && count > wanted))) {
                if (kills || (tears && !is_write)) {
                    kill(program, SIGKILL);
                    continue;
                }
                if (tears) {
                    set_third(&r, argument(&r, 2) / 2);
                    set(pid, &r);
                    ptrace(PTRACE_SYSCALL, pid, 0, 0);
                    continue;
                }
                refuse(pid, &r, error);
                set(pid, &r);
            }
        }
        ptrace(PTRACE_CONT, pid, 0, event ? 0 : signal);
    }
    fprintf(report, "%ld calls\n", count);
    fclose(report);
    return code;
}
