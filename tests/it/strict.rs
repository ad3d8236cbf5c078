//! What strict commands got at once though no key holds it, and may not get again: each of
//! these results was kept as proven.

use std::fs;
use std::path::Path;

use crate::space::{PATH, Space, is_alive, wait_until};

/// Returns a space whose strict target `t` has `o` as its output.
fn strict(inputs: &str, command: &str) -> Space {
    let space = Space::empty();
    let command = command
        .replace("[work]", &space.path("").display().to_string())
        .replace("[space]", &space.base().display().to_string());
    let text = format!(
        "target \"t\" {{\n    sandbox \"strict\"\n    {inputs}\n    outputs \"o\"\n    run #\"{command}\"#\n}}\n"
    );
    space.write("Releasefile.kdl", text);
    space
}

#[test]
fn a_link_behind_a_linked_directory_leads_where_the_kernel_says() {
    let space = strict(
        r#"inputs "inc/**" "way/x" "cfg""#,
        "cat inc/x way/x cfg > {out}; test ! -e common/y",
    );
    space
        .write("vendor/lib/common/y", "right\n")
        .write("common/y", "wrong\n")
        .write("sub/y", "right as well\n")
        .write("y", "wrong as well\n")
        .write("releases/shared.conf", "shared\n");
    space.shell(
        "mkdir vendor/lib/inc sub/deep releases/5; ln -s ../common/y vendor/lib/inc/x
         ln -s vendor/lib/inc inc; ln -s ../y sub/deep/x; ln -s sub/deep way
         ln -s releases/5 current; ln -s current/../shared.conf cfg",
    );
    space.build([]).ok().is("t ran");
    assert_eq!(space.read("o"), "right\nright as well\nshared\n");
    space.write("common/y", "other\n").write("y", "other\n");
    space.build([]).ok().is("t fresh");
    space.write("sub/y", "changed\n");
    space.build([]).ok().is("t ran");
    assert_eq!(space.read("o"), "right\nchanged\nshared\n");
}

#[test]
fn every_link_of_a_chain_counts() {
    let space = strict(r#"inputs "l""#, "cat l > {out}; readlink m >> {out}");
    space.write("f", "same\n").write("g", "same\n");
    space.shell("ln -s m l; ln -s f m");
    space.build([]).ok().is("t ran");
    space.shell("ln -sfn g m");
    space.build([]).ok().is("t ran");
    assert_eq!(space.read("o"), "same\ng\n");
    space.build([]).ok().is("t fresh");
}

#[test]
fn what_lies_beside_a_repository_in_a_directory_of_the_system_is_hidden() {
    for base in ["/opt", "/var/lib"] {
        let space = Space::below(Path::new(base));
        let text = format!(
            "target \"t\" {{ sandbox \"strict\"; outputs \"o\"; run \"cat {}/secret > {{out}} || true\" }}",
            space.base().display()
        );
        space.write("Releasefile.kdl", text);
        space.write("../secret", "one\n");
        let _ = space.run(["build"]).ok();
        assert_eq!(space.read("o"), "");
    }
}

#[test]
fn a_home_in_a_directory_of_the_system_is_hidden() {
    let space = strict("", "");
    let home = tempfile::tempdir_in("/var/lib").expect("a directory");
    let name = home.path().display();
    let text = format!(
        "target \"t\" {{ sandbox \"strict\"; outputs \"o\"; run \"cat {name}/secret > {{out}} || tool > {{out}}\" }}"
    );
    space.write("Releasefile.kdl", text);
    fs::write(home.path().join("secret"), "secret\n").expect("writes");
    let bin = home.path().join(".tools/bin");
    fs::create_dir_all(&bin).expect("creates");
    space.shell(&format!(
        "printf '#!/bin/sh\\necho tool\\n' > {0}/tool; chmod +x {0}/tool",
        bin.display()
    ));
    let mut rel = space.rel(["build"]);
    rel.env("HOME", home.path())
        .env("PATH", format!("{}:{}", bin.display(), *PATH));
    let _ = space.finish(&mut rel).ok();
    assert_eq!(space.read("o"), "tool\n");
}

#[test]
fn a_link_that_is_set_anew_is_looked_at_anew() {
    let [out, change, look] = [
        "echo a > $TMPDIR/a; ln -s $TMPDIR/a l",
        "chmod 600 l && echo changed",
        "stat -L -c %s l",
    ];
    let anew = "rm l; ln -s [work]secret.txt l; echo anew";
    let space = strict(
        "",
        &format!(
            "{out}; {change}; {look}; {anew}; {change}; {look} || true; rm l; echo x > {{out}}"
        ),
    );
    space.write("secret.txt", "secretsecret\n");
    space.shell("chmod 644 secret.txt");
    let _ = space.run(["build"]).ok();
    let printed = space.run(["log", "t"]).ok().stdout;
    let (before, after) = printed.split_once("anew").expect("all was done");
    assert!(before.contains("changed\n2"), "{printed}");
    let is_got = |line: &str| ["changed", "13"].contains(&line);
    assert!(!after.lines().any(is_got), "{printed}");
    assert_eq!(space.shell("stat -c %a secret.txt"), "644\n");
}

#[test]
fn a_trace_follows_a_link_that_is_swapped() {
    let space = Space::new(
        r#"target "t" { inputs "v1/f"; outputs "o"; run "ln -s v1 cur; cat cur/f; ln -s v2 next; mv -T next cur; cat cur/f; rm cur; echo x > {out}" }"#,
    );
    space.write("v1/f", "1\n").write("v2/f", "2\n");
    let told = space.run(["check", "--trace", "t"]).fails(1);
    assert!(told.stdout.contains("reads `v2/f`"), "{told}");
}

/// What a strict Python program may try, and the line that it prints when it got nothing.
const ASKED: &str = r#"
import ctypes, mmap, os, struct, sys
work = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
def said(name, ask):
    try:
        print(name, ask())
    except OSError as e:
        print(name, e.strerror)
for there in ["secret.txt", "nothing.txt"]:
    path = os.path.join(work, there)
    said("chdir", lambda: os.chdir(path))
    said("statvfs", lambda: os.statvfs(path) and "there")
    said("getxattr", lambda: os.getxattr(path, "user.none"))
    said("listxattr", lambda: os.listxattr(path))
    said("removexattr", lambda: os.removexattr(path, "user.mark"))
    said("inotify", lambda: libc.inotify_add_watch(libc.inotify_init(), path.encode(), 1))
    said("open_tree", lambda: libc.syscall(428, -100, path.encode(), 0))
fd = os.open(work, os.O_PATH)
for dir in ["self", "thread-self"]:
    os.symlink(f"/proc/{dir}/fd/{fd}", "l")
    said("link", lambda: os.stat("l/secret.txt").st_size)
    os.remove("l")
how = struct.pack("QQQ", os.O_PATH, 0, 0x10)
found = libc.syscall(437, fd, b"/secret.txt", how, len(how))
print("openat2", found if found < 0 else os.fstat(found).st_size)
said("chroot", lambda: os.chroot(work))
said("root", lambda: os.stat("/secret.txt").st_size)
"#;

#[test]
fn no_call_tells_what_is_not_declared() {
    let space = strict(r#"inputs "ask.py""#, "python3 -S ask.py [work] | tee {out}");
    space.write("ask.py", ASKED).write("secret.txt", "secret\n");
    space.shell("setfattr -n user.mark -v 1 secret.txt 2>/dev/null || true");
    let _ = space.run(["build"]).ok();
    assert_eq!(
        space.read("o"),
        [
            "chdir No such file or directory",
            "statvfs No such file or directory",
            "getxattr No such file or directory",
            "listxattr No such file or directory",
            "removexattr Permission denied",
            "inotify -1",
            "open_tree -1",
            "chdir No such file or directory",
            "statvfs No such file or directory",
            "getxattr No such file or directory",
            "listxattr No such file or directory",
            "removexattr Permission denied",
            "inotify -1",
            "open_tree -1",
            "link No such file or directory",
            "link No such file or directory",
            "openat2 -1",
            "chroot Operation not permitted",
            "root No such file or directory\n",
        ]
        .join("\n")
    );
}

#[test]
#[cfg(target_arch = "x86_64")]
fn calls_by_the_numbers_of_another_architecture_fail() {
    let space = strict(
        r#"inputs "c.c""#,
        "cc c.c -o $TMPDIR/c && $TMPDIR/c [work]secret.txt > {out}",
    );
    space.write("secret.txt", "secret\n").write(
        "c.c",
        r#"
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
int main(int argc, char **argv) {
    char *path = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    strcpy(path, argv[1]);
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(15L), "b"(path), "c"(0600L) : "memory");
    printf("%ld\n", result);
    __asm__ volatile("syscall" : "=a"(result) : "a"(0x40000000L + 90), "D"(path), "S"(0600L) : "rcx", "r11", "memory");
    printf("%ld\n", result);
    return 0;
}
"#,
    );
    space.shell("chmod 644 secret.txt");
    let _ = space.run(["build"]).ok();
    assert_eq!(space.shell("stat -c %a secret.txt"), "644\n");
    assert_eq!(space.read("o"), "-38\n-38\n");
}

#[test]
fn inherited_descriptors_stay_with_rel() {
    let space = strict("", "cat <&7 > {out} || echo none > {out}");
    space.write("secret.txt", "one\n");
    let rel = crate::space::REL;
    space.shell(&format!("{rel} build 7<secret.txt"));
    assert_eq!(space.read("o"), "none\n");
}

/// Forks a process that makes no call which takes a path, by a way that is to be filled in.
const LEFT: &str = "
import os, time
if os.fork() == 0:
    [leave]
    time.sleep(200)
    os._exit(0)
";

#[test]
fn a_silent_process_left_behind_is_ended() {
    for leave in [
        "pass",
        "os.setsid()",
        "os.setsid(); os.fork() and os._exit(0)",
    ] {
        for (args, code) in [(&["build"][..], 1), (&["check", "--trace", "t"], 1)] {
            let space = strict(r#"inputs "f.py""#, "echo x > {out}; python3 -S f.py [work]");
            space.write("f.py", LEFT.replace("[leave]", leave));
            let _ = space.run(args).fails(code);
            let mark = format!("f.py\0{}", space.path("").display());
            wait_until("the end", || (!runs(&mark)).then_some(()));
        }
    }
}

/// Returns whether a process is alive whose arguments hold `mark`.
fn runs(mark: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("lists").flatten();
    let mut marked = processes.filter(|p| {
        let line = fs::read(p.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(mark)
    });
    marked.any(|p| is_alive(&p.file_name().to_string_lossy()))
}

// Each of these was refused, with words that led nowhere.
#[test]
fn what_is_harmless_is_not_refused() {
    let space = strict(
        "",
        "busybox mkdir -p $TMPDIR/a/b && rm -f [space]/not-there && rm -f [space]/loose \
         && echo err > /dev/stderr && echo tee | tee /dev/stderr > /dev/null && echo out >> /dev/stdout \
         && cat /dev/stdin && echo x > {out}",
    );
    space.write("../loose", "kept\n");
    let _ = space.run(["build"]).ok();
    assert_eq!(space.read("../loose"), "kept\n");
    let printed = space.run(["log", "t"]).ok().stdout;
    assert!(printed.ends_with("out\n"), "{printed}");
}

#[test]
fn a_link_out_of_a_directory_of_tools_is_named() {
    let space = Space::empty();
    let base = space.base().display();
    space.write(
        "Releasefile.kdl",
        format!(
            "target \"t\" {{ sandbox \"strict\" {{ read \"{base}/opt\" }}; outputs \"o\"; run \"stat -L {base}/opt/sdk/tool || {base}/opt/sdk/tool > {{out}}\" }}"
        ),
    );
    space.write("../real/tool", "#!/bin/sh\necho tool\n");
    space.shell("chmod +x ../real/tool; mkdir ../opt; ln -s ../real ../opt/sdk");
    let told = space.run(["build"]).fails(1);
    assert!(told.stderr.contains("runs `[space]/real/tool`"), "{told}");
}

/// What builds are made of goes on working: name and command.
const USUAL: &[(&str, &str)] = &[
    (
        "compiler",
        "cc -O2 -c main.c -o $TMPDIR/m.o; ar rcs $TMPDIR/l.a $TMPDIR/m.o; \
         cc $TMPDIR/m.o -o $TMPDIR/m; strip $TMPDIR/m; $TMPDIR/m > {out}",
    ),
    ("make", "make -s -j2 OUT={out}"),
    (
        "git",
        "git init -q $TMPDIR/g; cd $TMPDIR/g; git config user.name x; git config user.email x; \
         echo 1 > a; git add a; git commit -qm one; git gc -q; git clone -q . ../h; \
         cd $OLDPWD; git -C $TMPDIR/h log --format=%s > {out}",
    ),
    (
        "tar-with-modes-and-times",
        "cd $TMPDIR; mkdir -p d/e x; echo 1 > d/f; chmod 4711 d/f; ln -s f d/l; \
         touch -h -d @5 d/l; touch -d @7 d/f; chmod 500 d/e; tar -cpf a.tar d; \
         tar -xpf a.tar -C x; cp -a x/d y; rsync -a y/ z; cd $OLDPWD; \
         stat -c '%a %Y' $TMPDIR/z/f > {out}; stat -c %Y $TMPDIR/z/l >> {out}; \
         test \"$(cat {out} | tr '\\n' ' ')\" = '4711 7 5 '",
    ),
    (
        "install",
        "install -m 750 main.c {out}; test $(stat -c %a {out}) = 750",
    ),
    (
        "python-with-sockets-and-threads",
        "/usr/bin/python3 usual.py > {out}",
    ),
    (
        "processes",
        "sh -c 'sleep 100' & kill $!; wait $! || true; timeout 9 true; nice -n 3 true; \
         prlimit --pid $$ --nofile=99:99; taskset -p $$ > {out}",
    ),
    (
        "busybox",
        "busybox sh -c 'echo 1 | busybox tee {out}; busybox chmod 640 {out}'",
    ),
];

const USUAL_PY: &str = r#"
import concurrent.futures, os, socket, subprocess, tempfile, threading
print(subprocess.run(["cat", "main.c"], capture_output=True, check=True).stdout)
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(list(pool.map(lambda x: x * x, [1, 2])))
name = os.path.join(tempfile.mkdtemp(), "s")
server = socket.socket(socket.AF_UNIX)
server.bind(name)
server.listen()
def serve():
    for _ in range(20):
        server.accept()[0].sendall(b"x")
threading.Thread(target=serve).start()
def ask(_):
    client = socket.socket(socket.AF_UNIX)
    client.connect(name)
    return client.recv(1)
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    assert list(pool.map(ask, range(20))) == [b"x"] * 20
try:
    socket.create_connection(("127.0.0.1", 1), 5)
except ConnectionRefusedError:
    print(socket.getaddrinfo("localhost", 80)[0][4])
"#;

#[test]
fn what_builds_are_made_of_goes_on_working() {
    let space = Space::empty();
    let mut text = String::from("sandbox \"strict\"\n");
    for (name, command) in USUAL {
        text.push_str(&format!(
            "target \"{name}\" {{\n    inputs \"main.c\" \"Makefile\" \"usual.py\"\n    \
             outputs \"out/{name}\"\n    run #\"{command}\"#\n}}\n"
        ));
    }
    space
        .write("Releasefile.kdl", text)
        .write(
            "main.c",
            "#include <stdio.h>\nint main(void) { puts(\"hello\"); }\n",
        )
        .write(
            "Makefile",
            "all: a b\n\t@touch \"$(OUT)\"\na b:\n\t@true\n.PHONY: all a b\n",
        )
        .write("usual.py", USUAL_PY);
    let output = space.run(["build", "-k"]);
    assert_eq!(output.code, 0, "{output}");
}
